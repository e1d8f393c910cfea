/** Making elements without a framework: `h("button", { class: "primary", onclick: start }, "Start")`. */

type Child = Node | string | number | null | undefined | false;
type Attributes = Record<string, unknown>;

/** An element with attributes, listeners (`onclick`) and children. `null`, `undefined` and `false` are left out. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Child | Child[])[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  append(element, children);
  return element;
}

function setAttribute(element: HTMLElement, name: string, value: unknown): void {
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on") && typeof value === "function") {
    element.addEventListener(name.slice(2), value as EventListener);
  } else if (name === "value" && "value" in element) {
    (element as HTMLInputElement).value = String(value);
  } else if (name === "checked" || name === "disabled" || name === "selected" || name === "hidden" || name === "open") {
    (element as unknown as Record<string, boolean>)[name] = Boolean(value);
  } else {
    element.setAttribute(name, value === true ? "" : String(value));
  }
}

function append(parent: Node, children: (Child | Child[])[]): void {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    parent.appendChild(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Replaces everything in an element. */
export function fill(parent: Element, ...children: (Child | Child[])[]): void {
  parent.replaceChildren();
  append(parent, children);
}

/** Writes a text only when it is another one, so that assistive technology and layout are left alone. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Shows or hides. */
export function show(element: HTMLElement, visible: boolean): void {
  if (element.hidden === visible) element.hidden = !visible;
}

/** As `disabled`, but the element keeps the focus and can say why it does nothing. */
export function setDisabled(button: HTMLButtonElement, disabled: boolean, why = ""): void {
  button.disabled = disabled;
  if (disabled && why) button.title = why;
  else button.removeAttribute("title");
}

let lastId = 0;

/** An id that no other element has. */
export function uniqueId(prefix: string): string {
  lastId += 1;
  return `${prefix}-${lastId}`;
}

/** A function that runs `work` once, `ms` after the last of several calls. */
export function debounce(work: () => void, ms: number): () => void {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = window.setTimeout(work, ms);
  };
}
