/** Section 7: files out, files in. */

import { copyLink } from "../actions/share";
import { exportable, hasCheckpoint, importFiles, saveAdapter, saveBest, saveCheckpoint, saveEverything, saveGguf, saveRunFile, startFromImported, stem } from "../actions/files";
import { h, setDisabled, setText, show } from "../lib/dom";
import { get, watch, type Run } from "../state";
import { dropTarget, filePicker, section } from "./parts";

/** The section. */
export function homeSection(): HTMLElement {
  const { root, body, aside } = section(7, "Take it home");
  const item = (label: string, help: string, act: (run: Run) => Promise<void>) => {
    const button = h("button", { type: "button" }, label);
    button.addEventListener("click", () => {
      const run = exportable();
      if (run) void act(run);
    });
    return { button, root: h("li", {}, button, h("span", { class: "muted small" }, help)) };
  };
  const gguf = item("Adapter for llama.cpp and Ollama (.gguf)", "One file beside the base that it was trained on.", saveGguf);
  const adapter = item("PEFT adapter (.zip)", "Loads in Hugging Face PEFT as it is.", saveAdapter);
  const best = item("Best PEFT adapter (.zip)", "As it was at its lowest held-out loss.", saveBest);
  const checkpoint = item("Checkpoint", "Goes on bit for bit, here or with weblora train --resume.", saveCheckpoint);
  const runFile = item("Run file (.toml)", "All settings, for weblora train --config.", saveRunFile);
  const everything = item("Everything (.zip)", "Adapter, checkpoint, run file and rows; drop it here to go on.", saveEverything);
  const list = h("ul", { class: "exports" }, gguf.root, adapter.root, best.root, checkpoint.root, runFile.root, everything.root);
  const hint = h("p", { class: "muted" });
  const lines = h("pre", { class: "lines", tabindex: 0, "aria-label": "Commands that load the adapter" });
  const load = h("details", { class: "more" }, h("summary", {}, "How to load it there"), lines);
  body.append(hint, list, load, share(), importZone());
  watch(["runs", "trial"], () => {
    const run = exportable();
    const busy = get().trial.busy;
    setText(lines, run ? loadingLines(run) : "");
    show(load, run !== null);
    setText(aside, run ? `run ${run.name}` : "");
    setText(hint, "The results of a run, from its first step on.");
    show(hint, run === null);
    show(best.root, run !== null && run.best !== null);
    for (const each of [gguf, adapter, runFile, everything]) setDisabled(each.button, run === null || busy);
    setDisabled(checkpoint.button, run === null || busy || !hasCheckpoint(run), "Only the last run still has its whole state");
  });
  return root;
}

/** The lines that load a saved adapter in other programs. */
function loadingLines(run: Run): string {
  const base = /\.gguf$/i.test(run.base.name) ? run.base.name : `${run.base.name}.gguf`;
  const file = `${stem(run)}-adapter`;
  return [
    `llama-cli -m "${base}" --lora ${file}.gguf -p "…"`,
    `printf 'FROM "./${base}"\\nADAPTER ./${file}.gguf\\n' > Modelfile && ollama create mine && ollama run mine`,
    `python -c "from peft import AutoPeftModelForCausalLM as M; M.from_pretrained('${file}')"   # the unpacked zip`,
  ].join("\n");
}

/** A link that opens this page with these settings; rows and models are never in it. */
function share(): HTMLElement {
  const told = h("span", { class: "muted small", role: "status" });
  const button = h("button", { type: "button", class: "quiet", onclick: () => void copyLink().then((text) => setText(told, text)) }, "Copy a link to these settings");
  const root = h("div", { class: "row" }, button, told);
  watch(["form"], () => show(root, get().form.table.length > 0));
  return root;
}

function importZone(): HTMLElement {
  const box = h("input", { type: "checkbox", onchange: () => startFromImported(box.checked) });
  const from = h("label", { class: "check", hidden: true }, box, h("span", {}));
  const zone = h(
    "div",
    { class: "drop" },
    filePicker("Bring files back…", ".zip,.safetensors,.json,.toml,.gguf,.jsonl", (files) => void importFiles(files)),
    h("p", { class: "muted small" }, "An adapter (zip, or its two files), a checkpoint, a run file, or an archive of this page. Or drop them anywhere."),
  );
  dropTarget(zone, (files) => void importFiles(files));
  watch(["trial", "form"], () => {
    const { imported } = get().trial;
    show(from, imported !== null);
    const text = from.querySelector("span");
    if (text) setText(text, `Start the next run from ${imported?.name ?? ""}`);
    box.checked = get().form.init !== null;
  });
  return h("div", {}, zone, from);
}
