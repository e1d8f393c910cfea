/** Puts the page together. */

import "uplot/dist/uPlot.min.css";
import "./styles/base.css";
import "./styles/controls.css";
import "./styles/sections.css";
import "./styles/charts.css";
import "./styles/inside.css";
import "./styles/finale.css";
import "./styles/jobs.css";
import { refreshStorage } from "./actions/base";
import { mountAnnouncer } from "./lib/announce";
import { h, show } from "./lib/dom";
import { apply } from "./lib/theme";
import { get, isLocked, watch } from "./state";
import { checkSupport, report } from "./trainer";
import { warnBeforeLeaving } from "./actions/leave";
import { takeLinked } from "./actions/share";
import { baseSection } from "./view/base";
import { dropAnywhere, header, notice } from "./view/header";
import { hero } from "./view/hero";
import { homeSection } from "./view/home";
import { insideSection } from "./view/inside";
import { methodSection } from "./view/method";
import { rowsSection } from "./view/rows";
import { savedRuns } from "./view/saved";
import { shelf } from "./view/shelf";
import { noWebGpu } from "./view/support";
import { trainSection } from "./view/train";
import { trialSection } from "./view/trial";

const app = document.getElementById("app");
if (app) void begin(app);

async function begin(root: HTMLElement): Promise<void> {
  apply();
  mountAnnouncer(document.body);
  window.addEventListener("unhandledrejection", (event) => void report(event.reason));
  root.append(header());
  await checkSupport();
  if (get().device.status === "missing") {
    root.append(noWebGpu());
    return;
  }
  root.append(
    notice(),
    h(
      "main",
      { id: "main" },
      savedRuns(),
      shelf(),
      hero(),
      h("div", { class: "bench" }, h("div", { class: "setup" }, locked(), baseSection(), rowsSection(), methodSection()), h("div", { class: "work" }, trainSection(), trialSection(), insideSection(), homeSection())),
    ),
    footer(),
  );
  dropAnywhere(root);
  warnBeforeLeaving();
  takeLinked();
  // A device that turns out to be unusable is as good as none.
  watch(["device"], () => {
    const { status, problem } = get().device;
    if (status === "missing" && problem?.code === "no_webgpu") root.querySelector("main")?.replaceWith(noWebGpu());
  });
  await refreshStorage();
}

/** Why the set-up does not answer. */
function locked(): HTMLElement {
  const text = h("p", { class: "muted small", hidden: true }, "The set-up is locked while a run trains.");
  watch(["runs"], () => show(text, isLocked()));
  return text;
}

function footer(): HTMLElement {
  return h("footer", { class: "muted small" }, h("p", {}, "weblora is free software (MIT or Apache-2.0). This page sends nothing anywhere: no analytics, no third party; a base model is fetched only when you ask for it."));
}
