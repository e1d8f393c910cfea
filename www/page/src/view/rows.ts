/** Section 2: the rows, and how the model reads them. */

import { applyRecipe, setSetting } from "../actions/form";
import { showDownloads } from "../actions/base";
import { beginChoice, chooseSet, editRows, heldOutFromFile, rowsFromFile, rowsFromText } from "../actions/rows";
import { ROW_SETS } from "../data/rowsets";
import { debounce, fill, h, setText, show, uniqueId } from "../lib/dom";
import { plural } from "../lib/format";
import { get, isBuiltIn, isLocked, watch } from "../state";
import { choices, dropTarget, filePicker, problemBox, section } from "./parts";
import { columnsView } from "./columns";
import { mixtureView } from "./mixture";
import { previewView } from "./preview";
import { teachPanel } from "./teach";

const EXAMPLE = '{"prompt": "Who are you?", "completion": " I am Wren."}\n{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello, traveller."}]}';

/** The section. */
export function rowsSection(): HTMLElement {
  const { root, body, aside } = section(2, "Rows");
  const sets = setPanel();
  const file = filePanel();
  const paste = pastePanel();
  const teach = teachPanel();
  const tabs = choices(
    "Where the rows come from",
    [
      { id: "set", label: "Built in" },
      { id: "file", label: "File" },
      { id: "paste", label: "Paste" },
      { id: "teach", label: "Teach" },
    ],
    (id) => {
      if (id === "set") void chooseBuiltIn("swap");
      else beginChoice(id as "file" | "paste" | "teach");
    },
  );
  const problem = problemBox();
  const warnings = h("ul", { class: "warnings" });
  const fieldset = h("fieldset", { class: "plain" }, tabs.root, sets, file, paste.root, teach.root, formatChoice(), heldOut(), mixtureView());
  const change = () => {
    const rows = editRows();
    if ("pairs" in rows) teach.edit(rows.pairs);
    else paste.edit(rows.text);
  };
  const edit = h("button", { type: "button", class: "small", onclick: change }, "Edit these rows");
  const foreign = h("p", { class: "warnings", hidden: true }, "The built-in model does not know these words: it spells them letter by letter, and will not learn them. ", h("button", { type: "button", class: "link", onclick: showDownloads }, "Load a larger model"), " for such rows.");
  body.append(fieldset, problem.root, warnings, foreign, previewView(), edit);
  root.classList.add("rows-section");

  watch(["rows", "runs"], () => {
    const { choice, total, trainName, problem: found, warnings: notes, foreign: spelt, status } = get().rows;
    const { train } = get().rows;
    const tab = choice === "file" || choice === "paste" || choice === "teach" ? choice : "set";
    show(edit, tab !== "paste" && tab !== "teach" && train !== null && "text" in train && train.text.length < EDITABLE);
    edit.disabled = isLocked();
    tabs.set(tab);
    show(sets, tab === "set");
    show(file, tab === "file");
    show(paste.root, tab === "paste");
    show(teach.root, tab === "teach");
    problem.set(found);
    fieldset.disabled = isLocked();
    setText(aside, total > 0 ? `${trainName} · ${plural(total, "row")}` : status === "loading" ? "reading…" : trainName);
    fill(warnings, ...notes.map((note) => h("li", {}, note)));
    show(warnings, notes.length > 0);
    show(foreign, spelt);
  });
  return root;
}

/** Takes a set that comes with the page; the settings for a few rows of one's own go. */
async function chooseBuiltIn(id: string): Promise<void> {
  if (get().form.recipe === "few" && isBuiltIn()) await applyRecipe("demo");
  await chooseSet(id);
}

function setPanel(): HTMLElement {
  const id = uniqueId("set");
  const help = h("p", { class: "muted small", id: `${id}-help` });
  const options = ROW_SETS.map((set) => h("option", { value: set.id }, set.name));
  const select = h("select", { id, "aria-describedby": `${id}-help`, onchange: () => void chooseBuiltIn(select.value) }, h("option", { value: "", disabled: true, selected: true }, "Choose a set…"), options);
  watch(["rows"], () => {
    const set = ROW_SETS.find((each) => each.id === get().rows.choice);
    if (set) select.value = set.id;
    setText(help, set?.help ?? "Small sets that come with the page.");
  });
  return h("div", { class: "panel" }, h("label", { for: id, class: "visually-hidden" }, "Set of rows"), select, help);
}

function filePanel(): HTMLElement {
  const name = h("p", { class: "small" });
  const zone = h(
    "div",
    { class: "drop" },
    filePicker("Choose a file of rows…", ".jsonl,.ndjson,.json,.txt,.csv,.tsv", ([file]) => file && void rowsFromFile(file)),
    h("p", { class: "muted small" }, "or drop it here. JSON lines with prompt and completion, instruction and output, question and answer, messages, or text; a JSON array; CSV or TSV with two columns; or plain text, one row a paragraph."),
    name,
  );
  dropTarget(zone, ([file]) => file && void rowsFromFile(file));
  watch(["rows"], () => setText(name, get().rows.choice === "file" ? get().rows.trainName : ""));
  return h("div", { class: "panel" }, zone, columnsView());
}

function pastePanel(): { root: HTMLElement; edit(text: string): void } {
  const id = uniqueId("paste");
  const area = h("textarea", { id, rows: 6, spellcheck: "false", placeholder: EXAMPLE });
  area.addEventListener("input", debounce(() => void rowsFromText(area.value), 400));
  const root = h("div", { class: "panel" }, h("label", { for: id }, "One JSON object a line, two columns out of a spreadsheet, or plain text, one row a paragraph"), area);
  const edit = (text: string) => {
    area.value = text;
    area.focus();
    void rowsFromText(text);
  };
  let before = "";
  watch(["rows"], () => {
    const { choice, train } = get().rows;
    // What was pasted before counts again when the field is opened again.
    if (choice === "paste" && before !== "paste" && train === null && area.value.trim() !== "") void rowsFromText(area.value);
    before = choice;
  });
  return { root, edit };
}

/** Rows up to this many characters are opened in a text field. */
const EDITABLE = 200_000;

/** How rows become text: a setting like any other, but this is where one looks for it. */
function formatChoice(): HTMLElement {
  const id = uniqueId("format");
  const select = h("select", { id, onchange: () => setSetting("format", select.value === "auto" ? undefined : select.value) });
  let drawn = "";
  watch(["form"], () => {
    const names = get().form.table.find(({ key }) => key === "format")?.choices ?? ["auto", "plain", "chat", "alpaca"];
    if (drawn !== names.join()) fill(select, ...names.map((name) => h("option", { value: name }, name === "auto" ? "by their shape" : name)));
    drawn = names.join();
    select.value = String(get().form.changed["format"] ?? "auto");
  });
  return h("div", { class: "inline-field" }, h("label", { for: id }, "Read rows"), select);
}

function heldOut(): HTMLElement {
  const text = h("p", { class: "small" });
  const remove = h("button", { type: "button", class: "small", onclick: () => void heldOutFromFile(null) }, "Remove");
  const root = h(
    "div",
    { class: "held-out" },
    text,
    h("div", { class: "row" }, filePicker("Held-out file…", ".jsonl,.ndjson,.json,.txt,.csv,.tsv", ([file]) => file && void heldOutFromFile(file), "small"), remove),
  );
  watch(["rows", "form"], () => {
    const { heldOutName } = get().rows;
    const split = Number(get().form.changed["evalSplit"] ?? 0);
    const from = heldOutName ? `Held out: ${heldOutName}.` : split > 0 ? `Held out: ${Math.round(100 * split)} % of the rows.` : "No rows are held out; only the training loss is known then.";
    setText(text, from);
    show(remove, heldOutName !== "");
  });
  return root;
}
