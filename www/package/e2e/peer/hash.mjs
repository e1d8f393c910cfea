// The weights that all peers of the suite share: element i of tensor number s is a hash of both, uniform with a given standard deviation.
// Equal weights make equal losses, which prove that the work is the same. (src/bench/peers.rs has them for native benchmarks.)

export function fill(number, count, std) {
  const values = new Float32Array(count);
  const width = std * Math.sqrt(12);
  for (let i = 0; i < count; i += 1) {
    let x = (Math.imul(i, 1664525) + Math.imul(number, 1013904223) + 12345) | 0;
    x = Math.imul(x ^ (x >>> 16), 2246822519);
    x = Math.imul(x ^ (x >>> 13), 3266489917);
    x ^= x >>> 16;
    values[i] = ((x >>> 0) / 2 ** 32 - 0.5) * width;
  }
  return values;
}
