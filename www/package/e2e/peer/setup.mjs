// What the peer's scripts import as `./setup.mjs`, for a page: there it makes WebGPU for Node, here the browser has it.

export { fill } from "./hash.mjs";

const { env: wishes } = globalThis.process;

export const env = (name, otherwise) => (wishes[name] === undefined ? otherwise : Number(wishes[name]));
export const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];
export const peakRss = () => "unknown";
