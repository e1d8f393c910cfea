/** Section 7: files out, files in. */

import { exportable, hasCheckpoint, importFiles, saveAdapter, saveBest, saveCheckpoint, saveEverything, saveGguf, saveRunFile, startFromImported } from "../actions/files";
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
  const gguf = item("Adapter for llama.cpp and Ollama (.gguf)", "llama-cli -m base.gguf --lora adapter.gguf, or ADAPTER in a Modelfile.", saveGguf);
  const adapter = item("PEFT adapter (.zip)", "Loads in Hugging Face PEFT as it is.", saveAdapter);
  const best = item("Best PEFT adapter (.zip)", "As it was at its lowest held-out loss.", saveBest);
  const checkpoint = item("Checkpoint", "Goes on bit for bit, here or with weblora train --resume.", saveCheckpoint);
  const runFile = item("Run file (.toml)", "All settings, for weblora train --config.", saveRunFile);
  const everything = item("Everything (.zip)", "Adapter, checkpoint, run file and rows; drop it here to go on.", saveEverything);
  const list = h("ul", { class: "exports" }, gguf.root, adapter.root, best.root, checkpoint.root, runFile.root, everything.root);
  const hint = h("p", { class: "muted" });
  body.append(hint, list, importZone());
  watch(["runs", "trial"], () => {
    const run = exportable();
    const busy = get().trial.busy;
    setText(aside, run ? `run ${run.name}` : "");
    setText(hint, "The results of a run, from its first step on.");
    show(hint, run === null);
    show(best.root, run !== null && run.best !== null);
    for (const each of [gguf, adapter, runFile, everything]) setDisabled(each.button, run === null || busy);
    setDisabled(checkpoint.button, run === null || busy || !hasCheckpoint(run), "Only the last run still has its whole state");
  });
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
