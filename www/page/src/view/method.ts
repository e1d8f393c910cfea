/** Section 3: method and settings. */

import { applyRecipe, setMethod, visibleSettings } from "../actions/form";
import { FOREMOST, RECIPES } from "../data/recipes";
import { methodWords } from "../data/words";
import { fill, h, setText, show, uniqueId } from "../lib/dom";
import { plural } from "../lib/format";
import { get, isLocked, update, watch } from "../state";
import { field, type Field } from "./field";
import { section } from "./parts";

/** The section. */
export function methodSection(): HTMLElement {
  const { root, body, aside } = section(3, "Method");
  const first = h("div", { class: "fields" });
  const rest = h("div", { class: "fields" });
  const summary = h("summary", {}, "All settings");
  const more = h("details", { class: "more" }, summary, rest);
  const empty = h("p", { class: "muted" }, "The settings appear when a base is loaded.");
  const fieldset = h("fieldset", { class: "plain" }, recipePicker(), methodPicker(), first, more);
  body.append(empty, fieldset, carried());
  let fields: Field[] = [];
  let table: unknown = null;

  const rebuild = () => {
    table = get().form.table;
    const rows = visibleSettings();
    const front = methodWords(get().form.method).first;
    fields = rows.map(field);
    const inFront = front.flatMap((key) => fields.filter((each) => each.key === key));
    const behind = fields.filter((each) => !inFront.includes(each)).sort((a, b) => rank(a.key) - rank(b.key));
    fill(first, ...inFront.map((each) => each.root));
    fill(rest, ...behind.map((each) => each.root));
    setText(summary, `Advanced: ${plural(behind.length, "more setting")}`);
  };
  watch(["form", "plan", "runs"], () => {
    const { form, plan } = get();
    if (form.table !== table) rebuild();
    show(empty, form.table.length === 0);
    show(fieldset, form.table.length > 0);
    fieldset.disabled = isLocked();
    for (const each of fields) {
      each.set(form.changed[each.key]);
      each.setProblem(plan.problem?.key === each.key ? plan.problem.message : null);
    }
    // A wrong setting must not hide.
    if (plan.problem?.key && rest.querySelector(`[data-key="${CSS.escape(plan.problem.key)}"]`)) more.open = true;
    const changed = Object.keys(form.changed).length;
    setText(aside, form.table.length ? `${methodWords(form.method).name}${changed ? ` · ${plural(changed, "setting")} set` : ""}` : "");
  });
  return root;
}

/** The order of the foremost settings; a method's own come after them. */
const rank = (key: string): number => (FOREMOST.includes(key) ? FOREMOST.indexOf(key) : FOREMOST.length);

function recipePicker(): HTMLElement {
  const id = uniqueId("recipe");
  const help = h("p", { class: "muted small", id: `${id}-help` });
  const custom = h("option", { value: "custom" }, "Custom");
  const select = h("select", { id, "aria-describedby": `${id}-help`, onchange: () => void applyRecipe(select.value) }, ...RECIPES.map((recipe) => h("option", { value: recipe.id }, recipe.name)), custom);
  watch(["form"], () => {
    const { recipe } = get().form;
    select.value = recipe;
    custom.disabled = recipe !== "custom";
    setText(help, RECIPES.find((each) => each.id === recipe)?.help ?? "Your own settings.");
  });
  return h("div", { class: "field" }, h("label", { for: id, class: "label" }, "Preset"), select, help);
}

function methodPicker(): HTMLElement {
  const id = uniqueId("method");
  const help = h("p", { class: "muted small", id: `${id}-help` });
  const select = h("select", { id, "aria-describedby": `${id}-help`, onchange: () => void setMethod(select.value) });
  let drawn = "";
  watch(["form"], () => {
    const { methods, method } = get().form;
    const names = methods.map(({ name }) => name);
    if (drawn !== names.join()) fill(select, ...names.map((name) => h("option", { value: name }, methodWords(name).name)));
    drawn = names.join();
    select.value = method;
    setText(help, methodWords(method).when || methods.find(({ name }) => name === method)?.help || "");
  });
  return h("div", { class: "field" }, h("label", { for: id, class: "label" }, "Method"), select, help);
}

/** What the next run starts from, when that is not from nothing. */
function carried(): HTMLElement {
  const text = h("p", {});
  const root = h("div", { class: "carried", hidden: true }, text, h("button", { type: "button", class: "quiet", onclick: () => update("form", { init: null, resume: null }) }, "Start anew instead"));
  watch(["form"], () => {
    const { init, resume } = get().form;
    show(root, init !== null || resume !== null);
    setText(text, resume ? `Goes on from step ${resume.step} of ${resume.name}.` : init ? `Starts from the adapter ${init.name}.` : "");
  });
  return root;
}
