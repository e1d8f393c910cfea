// A large file in pieces: what is in memory at a time, and what is hashed and verified by itself.

import { hex, sha256, writeAt, type SyncFile } from "./files.js";

/** Bytes of a piece. */
export const PIECE = 8 * 1024 * 1024;

/** Writes bytes of any length as they come, and hashes them in pieces of `PIECE` bytes. */
export class PieceWriter {
  /** SHA-256 of every piece that is in the file. */
  readonly pieces: string[];
  readonly #file: SyncFile;
  readonly #piece = new Uint8Array(PIECE);
  readonly #written: (pieces: string[]) => Promise<void>;
  #filled = 0;
  /** Bytes in the file. */
  bytes: number;

  /** Goes on after whole `pieces` that are in the file; `written` is called after each more. */
  constructor(file: SyncFile, pieces: string[], written: (pieces: string[]) => Promise<void>) {
    [this.#file, this.pieces, this.#written] = [file, [...pieces], written];
    this.bytes = pieces.length * PIECE;
  }

  async add(bytes: Uint8Array): Promise<void> {
    for (let from = 0; from < bytes.byteLength; ) {
      const count = Math.min(PIECE - this.#filled, bytes.byteLength - from);
      this.#piece.set(bytes.subarray(from, from + count), this.#filled);
      this.#filled += count;
      from += count;
      if (this.#filled === PIECE) await this.#put();
    }
  }

  /** The last piece, which may be shorter. */
  async finish(): Promise<void> {
    if (this.#filled > 0) await this.#put();
  }

  async #put(): Promise<void> {
    const piece = this.#piece.subarray(0, this.#filled);
    writeAt(this.#file, piece, this.bytes);
    this.pieces.push(hex(await sha256(piece)));
    this.bytes += this.#filled;
    this.#filled = 0;
    await this.#written(this.pieces);
  }
}

/** How many of `pieces` a file begins with. */
export async function wholePieces(file: SyncFile, pieces: string[]): Promise<number> {
  const piece = new Uint8Array(PIECE);
  for (const [i, expected] of pieces.entries()) {
    if (file.read(piece, { at: i * PIECE }) !== PIECE || hex(await sha256(piece)) !== expected) return i;
  }
  return pieces.length;
}
