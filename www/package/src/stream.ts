// Values that arrive one by one, for `for await`.

/** A queue between a callback and any number of iterators; each iterator gets every value from the first on. */
export class Stream<T> implements AsyncIterable<T> {
  readonly #values: T[] = [];
  #end: { error?: unknown } | undefined;
  #waiting: (() => void)[] = [];

  push(value: T): void {
    this.#values.push(value);
    this.#wake();
  }

  /** No more values; with `error`, iterators throw it after the last one. */
  finish(error?: unknown): void {
    this.#end ??= error === undefined ? {} : { error };
    this.#wake();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for (let next = 0; ; next++) {
      while (next >= this.#values.length) {
        if (this.#end) {
          if ("error" in this.#end) throw this.#end.error;
          return;
        }
        await new Promise<void>((wake) => this.#waiting.push(wake));
      }
      yield this.#values[next] as T;
    }
  }
}
