/** Taking results home and bringing them back. */

import type { AdapterFile } from "weblora";
import { fromFile, type FormSettings } from "../lib/settings";
import { announce } from "../lib/announce";
import { fileName, save, saveFile } from "../lib/download";
import { bytes, percent } from "../lib/format";
import { baseName, findAdapter, pack, routingOf, unpack } from "../lib/archive";
import { PageError } from "../lib/problem";
import { exclusive } from "../lib/queue";
import { writeRunFile } from "../lib/runfile";
import { checkpointState, sniff, whyForeign } from "../lib/sniff";
import { activeRun, get, isJobUnderWay, isTraining, shownRun, update, type Run } from "../state";
import { report, trainer } from "../trainer";
import { loadBase } from "./base";
import { importRunFile, setMethod, setSetting, takeSettings } from "./form";
import { jobAdapter } from "./jobs";
import { adapterAs, currentAdapter, currentCheckpoint, mergedModel } from "./run";
import { heldOutFromFile, mixCurrent, rowsFromFile, rowsFromText, unmixAll } from "./rows";
import { offerAdapter } from "./trial";

const RUN_FILE = "run.toml";
const CHECKPOINT_FILE = "checkpoint.safetensors";
const ROWS_FILE = "rows.jsonl";
const HELD_OUT_FILE = "heldout.jsonl";
const ADAPTER_FILES = ["adapter_config.json", "adapter_model.safetensors"];

/** Whether the Worker still holds a run's whole state: only of the last one. */
export const hasCheckpoint = (run: Run): boolean => run === get().runs.list.at(-1) && !run.job && run.step > 0 && run.state !== "failed";

/** Saves the adapter as a PEFT folder in a zip file. */
export async function saveAdapter(run: Run): Promise<void> {
  await guarded(async () => {
    save(`${stem(run)}-adapter.zip`, await pack(await adapterOf(run)), "application/zip");
    announce("The adapter was saved.");
  });
}

/** Saves the adapter as one GGUF file for llama.cpp and Ollama. */
export async function saveGguf(run: Run): Promise<void> {
  await guarded(async () => {
    const [file] = await adapterAs(await adapterOf(run), "gguf");
    if (file) save(`${stem(run)}-adapter.gguf`, file.bytes);
    announce("The adapter was saved as GGUF.");
  });
}

/** Saves base and adapter as one GGUF model; what to tell of it. */
export async function saveModel(run: Run): Promise<void> {
  await guarded(async () => {
    const files = await adapterOf(run);
    const { file, bytes: size, retention, warnings } = await mergedModel(files, (progress) => update("base", { progress }));
    saveFile(`${stem(run)}-merged-f16.gguf`, file);
    const kept = retention === undefined ? "" : ` ${percent(retention)} of the adapter's change is in it.`;
    const text = `The merged model of ${bytes(size)} was saved.${kept}`;
    update("notice", { kind: "info", text, detail: warnings });
    announce(text);
  });
  update("base", { progress: null });
}

/** Saves a MixLoRA adapter as its authors' programs read it. */
export async function saveAuthors(run: Run): Promise<void> {
  await guarded(async () => {
    save(`${stem(run)}-pytorch.zip`, await pack(await adapterAs(await adapterOf(run), "mixlora-bin")), "application/zip");
    announce("The adapter was saved for PyTorch.");
  });
}

/** Saves the adapter as it was at the lowest held-out loss. */
export async function saveBest(run: Run): Promise<void> {
  await guarded(async () => {
    if (run.best) save(`${stem(run)}-best.zip`, await pack(run.best), "application/zip");
    announce("The best adapter was saved.");
  });
}

/** Saves the checkpoint. */
export async function saveCheckpoint(run: Run): Promise<void> {
  await guarded(async () => {
    save(`${stem(run)}-${CHECKPOINT_FILE}`, await currentCheckpoint());
    announce("The checkpoint was saved.");
  });
}

/** Saves the settings as a run file of the command line. */
export async function saveRunFile(run: Run): Promise<void> {
  await guarded(async () => save(`${stem(run)}-${RUN_FILE}`, runFile(run), "application/toml"));
}

/** Saves everything in one zip file, which this page takes back whole. */
export async function saveEverything(run: Run): Promise<void> {
  await guarded(async () => {
    const text = (content: string) => new TextEncoder().encode(content);
    const files: AdapterFile[] = (await adapterOf(run)).map(({ name, bytes }) => ({ name: `adapter/${name}`, bytes }));
    files.push({ name: RUN_FILE, bytes: text(runFile(run)) });
    const { train, heldOut } = run.rows;
    for (const [name, sets] of [[ROWS_FILE, train], [HELD_OUT_FILE, heldOut ?? []]] as const) {
      const all = [sets].flat();
      all.forEach((rows, i) => "text" in rows && files.push({ name: numbered(name, i, all.length), bytes: text(rows.text) }));
    }
    if (hasCheckpoint(run)) files.push({ name: CHECKPOINT_FILE, bytes: await currentCheckpoint() });
    save(`${stem(run)}.zip`, await pack(files), "application/zip");
    announce("Everything was saved in one archive.");
  });
}

/** `rows.jsonl` alone, `rows-2.jsonl` among others. */
const numbered = (name: string, i: number, of: number): string => (of === 1 ? name : name.replace(".", `-${i + 1}.`));

/** The files of that name, numbered or not. */
const numberedFiles = (files: AdapterFile[], name: string): AdapterFile[] => {
  const pattern = new RegExp(`^${name.replace(".", "(-\\d+)?\\.")}$`);
  return files.filter((file) => pattern.test(baseName(file.name))).sort((a, b) => (a.name < b.name ? -1 : 1));
};

export const stem = (run: Run): string => fileName(`${run.base.name}-${run.name.replace(/^\d+ · /, "")}-step${run.step}`);

const runFile = (run: Run): string => writeRunFile(run.config as FormSettings, { base: run.base.name, rows: run.rows.name });

async function adapterOf(run: Run): Promise<AdapterFile[]> {
  return run.adapter ?? (run.job ? jobAdapter(run) : currentAdapter());
}

async function guarded(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    report(error);
  }
}

/** Takes files that were picked or dropped anywhere, each for what it is. */
export async function importFiles(files: File[]): Promise<void> {
  if (files.length === 0) return;
  if (isTraining()) return void report(new PageError("busy", "A run is under way; stop it before bringing in files."));
  await guarded(async () => {
    // The two files of a PEFT folder come together.
    if (files.some(({ name }) => name === "adapter_config.json")) return takeAdapter("the dropped adapter", await Promise.all(files.map(read)));
    for (const file of files) await importFile(file);
  });
}

async function importFile(file: File): Promise<void> {
  switch (await sniff(file)) {
    case "gguf":
      await loadBase({ file, name: file.name });
      return;
    case "zip":
      return importArchive(file);
    case "foreign":
      throw new PageError("format", await whyForeign(file));
    case "checkpoint":
      return importCheckpoint(file);
    case "run-file":
      return importRunFile(file);
    case "rows":
      return rowsFromFile(file);
    case "adapter-weights":
    case "adapter-config":
      throw new PageError("adapter", `${file.name} is one half of an adapter; bring ${ADAPTER_FILES.join(" and ")} together, or their zip file.`);
    default:
      throw new PageError("format", `${file.name} is nothing this page knows; it takes GGUF models, rows (JSON lines, CSV, text), run files, adapters and checkpoints.`);
  }
}

async function importArchive(file: File): Promise<void> {
  const files = await unpack(file);
  const find = (name: string) => files.find((each) => baseName(each.name) === name);
  const [toml, checkpoint] = [find(RUN_FILE), find(CHECKPOINT_FILE)];
  const [rows, heldOut] = [numberedFiles(files, ROWS_FILE), numberedFiles(files, HELD_OUT_FILE)];
  const adapter = findAdapter(files);
  if (!toml && !checkpoint && !adapter) {
    throw new PageError("format", `${file.name} holds neither an adapter nor a run; choose a zip file that this page or PEFT made.`);
  }
  if (toml) await importRunFile(asFile(toml));
  if (rows.length > 0) unmixAll();
  for (const [i, file] of rows.entries()) {
    if (i > 0) mixCurrent("paste");
    await rowsFromText(new TextDecoder().decode(file.bytes));
    const own = heldOut[i];
    if (own) await heldOutFromFile(asFile(own));
  }
  if (adapter) takeAdapter(file.name, adapter);
  if (checkpoint) await importCheckpoint(asFile(checkpoint));
  const found = [adapter ? "the adapter" : "", toml ? "the settings" : "", rows.length > 0 ? "the rows" : "", checkpoint ? "the checkpoint" : ""].filter(Boolean).join(", ");
  const next = get().base.info ? "" : " Load the base that it was made on to go on.";
  update("notice", { kind: "info", text: `From ${file.name}: ${found}.${next}`, detail: [] });
  announce(`From ${file.name}: ${found}.${next}`);
}

async function importCheckpoint(file: File): Promise<void> {
  const state = await checkpointState(file);
  if (!state) throw new PageError("format", `${file.name} is no checkpoint of weblora.`);
  const { info } = get().base;
  if (info && info.contentHash !== state.baseHash) {
    throw new PageError("adapter", `${file.name} was made on another base than ${info.name}; load that base first.`);
  }
  update("form", { resume: { name: file.name, bytes: new Uint8Array(await file.arrayBuffer()), step: state.step }, init: null });
  await takeSettings(fromFile(state.config));
  announce(`The next run goes on from step ${state.step} of ${file.name}.`);
}

/** Takes an adapter to try, and to start from. */
function takeAdapter(name: string, files: AdapterFile[]): void {
  const adapter = findAdapter(files);
  if (!adapter) throw new PageError("adapter", `${name} lacks ${ADAPTER_FILES.join(" or ")}; bring both, or their zip file.`);
  offerAdapter(name, adapter);
  announce(`${name} is ready to try, or to train on.`);
  void checkAdapter(adapter);
}

/** Says what should be known of an adapter on this base: that it was trained on another file of it. */
async function checkAdapter(files: AdapterFile[]): Promise<void> {
  if (!get().base.info) return;
  try {
    const made = await trainer();
    const { warning } = await exclusive(() => made.checkAdapter(files));
    if (warning) update("notice", { kind: "info", text: warning, detail: [] });
  } catch (error) {
    report(error);
  }
}

/** Lets the next run start from the imported adapter, or not. */
export async function startFromImported(on: boolean): Promise<void> {
  const { imported } = get().trial;
  update("form", { init: on && imported ? imported : null, resume: on ? null : get().form.resume });
  // Experts are trained on with the routing that they have.
  const routing = on && imported ? routingOf(imported.files) : null;
  if (!routing) return;
  await setMethod(routing.method);
  setSetting("experts", routing.experts);
  if (routing.topK !== undefined) setSetting("topK", routing.topK);
}

/** The run whose results are taken home. */
export function exportable(): Run | null {
  const active = activeRun();
  if (active) return active.step > 0 && active.state !== "stopping" ? active : null;
  const shown = shownRun();
  if (shown && (shown.adapter !== null || (isJobUnderWay(shown) && shown.step > 0))) return shown;
  return get().runs.list.findLast((run) => run.adapter !== null) ?? null;
}

const read = async (file: File): Promise<AdapterFile> => ({ name: file.name, bytes: new Uint8Array(await file.arrayBuffer()) });

const asFile = ({ name, bytes }: AdapterFile): File => new File([bytes as Uint8Array<ArrayBuffer>], baseName(name));
