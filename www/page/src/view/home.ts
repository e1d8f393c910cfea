/** Section 7: files out, files in. */

import { copyLink } from "../actions/share";
import { exportable, hasCheckpoint, importFiles, saveAdapter, saveBest, saveCheckpoint, saveEverything, saveAuthors, saveGguf, saveModel, saveRunFile, startFromImported, stem } from "../actions/files";
import { isRouted } from "../data/words";
import { h, setDisabled, setText, show } from "../lib/dom";
import { get, isTraining, watch, type Run } from "../state";
import { dropTarget, filePicker, progressBar, section } from "./parts";

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
  const routed = item("MixLoRA adapter (.zip)", "Routers and experts with their authors' names, as safetensors.", saveAdapter);
  const authors = item("MixLoRA for PyTorch (.zip)", "The same with adapter_model.bin, which its authors' programs read.", saveAuthors);
  const best = item("Best adapter (.zip)", "As it was at its lowest held-out loss.", saveBest);
  const merged = item("Merged model (.gguf, f16)", "Base and adapter in one file, for any program that reads GGUF. As large as the base, or larger.", saveModel);
  const writing = progressBar("Writing the merged model");
  const checkpoint = item("Checkpoint", "Goes on bit for bit, here or with weblora train --resume.", saveCheckpoint);
  const runFile = item("Run file (.toml)", "All settings, for weblora train --config.", saveRunFile);
  const everything = item("Everything (.zip)", "Adapter, checkpoint, run file and rows; drop it here to go on.", saveEverything);
  const list = h("ul", { class: "exports" }, gguf.root, adapter.root, routed.root, authors.root, best.root, merged.root, checkpoint.root, runFile.root, everything.root);
  const hint = h("p", { class: "muted" });
  const lines = h("pre", { class: "lines", tabindex: 0, "aria-label": "Commands that load the adapter" });
  const load = h("details", { class: "more" }, h("summary", {}, "How to load it there"), lines);
  body.append(hint, list, writing.root, load, share(), importZone());
  watch(["base"], () => {
    const { progress } = get().base;
    writing.set(progress?.phase === "export" ? progress : null);
  });
  watch(["runs", "trial", "base"], () => {
    const run = exportable();
    // A base that was loaded since is not the one to merge into.
    const same = run !== null && get().base.info?.contentHash === run.base.hash;
    const busy = get().trial.busy || get().base.progress !== null;
    setText(lines, run ? loadingLines(run) : "");
    show(load, run !== null);
    setText(aside, run ? `run ${run.name}` : "");
    setText(hint, "The results of a run, from its first step on.");
    show(hint, run === null);
    show(best.root, run !== null && run.best !== null);
    const experts = run !== null && isRouted(run.config["method"]);
    for (const each of [gguf, adapter, merged]) show(each.root, !experts);
    for (const each of [routed, authors]) show(each.root, experts);
    for (const each of [gguf, adapter, routed, authors, runFile, everything]) setDisabled(each.button, run === null || busy);
    setDisabled(merged.button, !same || busy || isTraining(), isTraining() ? "When no run is under way" : "Load the base of this run first");
    setDisabled(checkpoint.button, run === null || busy || !hasCheckpoint(run), "Only the last run still has its whole state");
  });
  return root;
}

/** The lines that load a saved adapter in other programs. */
function loadingLines(run: Run): string {
  const base = /\.gguf$/i.test(run.base.name) ? run.base.name : `${run.base.name}.gguf`;
  const file = `${stem(run)}-adapter`;
  // No other program chooses experts.
  if (isRouted(run.config["method"])) return `weblora generate --model "${base}" --adapter ${file} --prompt "…"   # the unpacked zip`;
  // The built-in model is no file beside which an adapter could be put; merged, it is one.
  if ("embedded" in run.base.source) {
    const merged = `${stem(run)}-merged-f16.gguf`;
    return [
      "# The built-in model is no file of its own: save the merged model, which other programs load alone.",
      `llama-cli -m ${merged} -no-cnv -p "…"`,
      `printf 'FROM ./${merged}\\n' > Modelfile && ollama create mine && ollama run mine`,
    ].join("\n");
  }
  return [
    `llama-cli -m "${base}" --lora ${file}.gguf -p "…"`,
    `printf 'FROM "./${base}"\\nADAPTER ./${file}.gguf\\n' > Modelfile && ollama create mine && ollama run mine`,
    `python -c "from transformers import AutoModelForCausalLM as M; from peft import PeftModel as P; P.from_pretrained(M.from_pretrained('.', gguf_file='${base}'), '${file}')"   # the unpacked zip`,
  ].join("\n");
}

/** A link that opens this page with these settings; rows and models are never in it. */
function share(): HTMLElement {
  const told = h("span", { class: "muted small", role: "status" });
  const button = h("button", { type: "button", class: "small", onclick: () => void copyLink().then((text) => setText(told, text)) }, "Copy a link to these settings");
  const root = h("div", { class: "row" }, button, told);
  watch(["form"], () => show(root, get().form.table.length > 0));
  return root;
}

function importZone(): HTMLElement {
  const box = h("input", { type: "checkbox", onchange: () => void startFromImported(box.checked) });
  const from = h("label", { class: "check", hidden: true }, box, h("span", {}));
  const zone = h(
    "div",
    { class: "drop" },
    filePicker("Bring files back…", ".zip,.safetensors,.bin,.json,.toml,.gguf,.jsonl", (files) => void importFiles(files)),
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
