// The public names of the package.

export { WebloraError } from "./errors.js";
export { Trainer } from "./trainer.js";
export { zip } from "./zip.js";
export type * from "./types.js";
