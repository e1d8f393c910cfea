/** Changing an adapter: links out of a chain, adapters joined, ranks cut. What comes of it is offered to be tried. */

import type { AdapterFile, Link, Merged, MergeOptions } from "weblora";
import { announce } from "../lib/announce";
import { pack } from "../lib/archive";
import { fileName, save } from "../lib/download";
import { percent, plural } from "../lib/format";
import { problem, type Problem } from "../lib/problem";
import { trainer } from "../trainer";
import { offerAdapter } from "./trial";

/** An adapter whose files are at hand. */
export interface Editable {
  id: string;
  name: string;
  files: AdapterFile[];
}

/** The links of a chain, oldest first; none of an adapter that is no chain. */
export async function linksOf({ files }: Editable): Promise<Link[] | { problem: Problem }> {
  try {
    return await (await trainer()).links(files);
  } catch (error) {
    return { problem: problem(error) };
  }
}

/** Takes links out of a chain. */
export const dropLinks = (from: Editable, drop: number[], kept: number[]): Promise<string | Problem> =>
  merged(`${from.name}, ${kept.length === 1 ? "link" : "links"} ${kept.map((link) => link + 1).join(", ")}`, [from], { drop });

/** Adds another adapter of the same base, `weight` times. */
export const joinWith = (from: Editable, other: Editable, weight: number): Promise<string | Problem> =>
  merged(`${from.name} + ${weight === 1 ? "" : `${weight} × `}${other.name}`, [from, other], weight === 1 ? {} : { weights: [1, weight] });

/** Cuts every layer to a rank. */
export const cutRanks = (from: Editable, maxRank: number): Promise<string | Problem> => merged(`${from.name}, rank ${maxRank}`, [from], { maxRank });

async function merged(name: string, from: Editable[], options: MergeOptions): Promise<string | Problem> {
  try {
    const made = await (await trainer()).mergeAdapters(from.map(({ files }) => files), options);
    offerAdapter(name, made.files);
    const told = sentence(name, made);
    announce(told);
    return told;
  } catch (error) {
    return problem(error);
  }
}

function sentence(name: string, { links, rank, dropped, warning }: Merged): string {
  const what = links > 0 ? `a chain of ${plural(links, "link")}` : "one adapter";
  const lost = dropped === null ? "" : ` Cutting lost ${percent(dropped)} of the update.`;
  return `${name}: ${what}, rank up to ${rank}, chosen under “Try it”.${lost}${warning ? ` Note: ${warning}.` : ""}`;
}

/** Saves the adapter as a PEFT folder in a zip file. */
export async function saveIt({ name, files }: Editable): Promise<Problem | null> {
  return guarded(async () => {
    save(`${fileName(name)}.zip`, await pack(files), "application/zip");
    announce("The adapter was saved.");
  });
}

/** Saves every link as a PEFT folder of its own, in one zip file. */
export async function saveLinks({ name, files }: Editable): Promise<Problem | null> {
  return guarded(async () => {
    const links = await (await trainer()).splitLinks(files);
    const folders = links.flatMap((link, i) => link.map((file) => ({ ...file, name: `link-${i}/${file.name}` })));
    save(`${fileName(name)}-links.zip`, await pack(folders), "application/zip");
    announce(`${plural(links.length, "link")} saved.`);
  });
}

async function guarded(work: () => Promise<void>): Promise<Problem | null> {
  try {
    await work();
    return null;
  } catch (error) {
    return problem(error);
  }
}
