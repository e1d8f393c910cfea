/** The experts of a run of MixLoRA: a heat map of how much each was used, block by block. */

import { fill, h, setText, show } from "../lib/dom";
import { plural } from "../lib/format";
import type { RouterMean } from "../lib/routers";
import { shownRun, watch } from "../state";

/** Milliseconds between two drawings while training. */
const PACE = 500;

/** The map, and what is good in one sentence. */
export function expertsView(): HTMLElement {
  const caption = h("p", { class: "small" });
  const hint = h("p", { class: "muted small" });
  const scroll = h("div", { class: "table-scroll", tabindex: 0, role: "region", "aria-label": "Load of the experts" });
  const root = h("section", { class: "experts", hidden: true, "aria-label": "Experts" }, h("h3", { class: "small" }, "Experts"), caption, scroll, hint);
  let map: HeatMap | null = null;
  let drawn = "";
  const draw = () => {
    const run = shownRun();
    const mean = run?.series.routers.mean() ?? null;
    show(root, mean !== null);
    if (!run || !mean) return;
    const now = `${run.id} ${run.series.version}`;
    if (now === drawn) return;
    drawn = now;
    const experts = mean.blocks[0]?.load.length ?? 0;
    if (map?.experts !== experts || map.blocks !== mean.blocks.length) {
      map = heatMap(experts, mean.blocks.map(({ layer }) => layer));
      fill(scroll, map.table);
    }
    map.set(mean);
    setText(caption, `Share of the tokens that chose each expert, in the last ${plural(mean.steps, "step")}. Fewest in use: ${fewest(mean).toFixed(1)} of ${experts}, in layer ${mean.worst}.`);
    setText(hint, `Used evenly, every expert gets ${Math.round((100 * mean.perToken) / Math.max(1, experts))} %. One that gets nothing learns nothing; a row of few dark cells is a router that has collapsed: raise aux-coef or lower the learning rate.`);
  };
  let due = 0;
  watch(["runs"], () => {
    due ||= window.setTimeout(() => {
      due = 0;
      draw();
    }, PACE);
  });
  return root;
}

const fewest = ({ blocks }: RouterMean): number => Math.min(...blocks.map(({ inUse }) => inUse));

interface HeatMap {
  table: HTMLElement;
  experts: number;
  blocks: number;
  set(mean: RouterMean): void;
}

function heatMap(experts: number, layers: number[]): HeatMap {
  const numbers = Array.from({ length: experts }, (_, expert) => h("th", { scope: "col" }, expert));
  const cells = layers.map(() => Array.from({ length: experts }, () => h("td", { class: "heat" })));
  const figures = layers.map(() => [h("td", { class: "number" }), h("td", { class: "number" })] as const);
  const rows = layers.map((layer, i) => h("tr", {}, h("th", { scope: "row" }, layer), cells[i] ?? [], ...(figures[i] ?? [])));
  const head = h("tr", {}, h("th", { scope: "col" }, "layer"), numbers, h("th", { scope: "col" }, "in use"), h("th", { scope: "col" }, "entropy"));
  const table = h("table", { class: "heat-map" }, h("caption", { class: "visually-hidden" }, "Share of tokens by layer and expert, in percent"), h("thead", {}, head), h("tbody", {}, rows));
  return {
    table,
    experts,
    blocks: layers.length,
    set: ({ blocks }) =>
      blocks.forEach(({ load, inUse, entropy }, i) => {
        load.forEach((share, expert) => {
          const cell = cells[i]?.[expert];
          if (!cell) return;
          cell.style.setProperty("--heat", share.toFixed(3));
          setText(cell, (100 * share).toFixed(0));
        });
        const [use, nats] = figures[i] ?? [];
        if (use) setText(use, inUse.toFixed(1));
        if (nats) setText(nats, entropy.toFixed(2));
      }),
  };
}
