// Step S of the peer suite as files that the package opens: a GGUF with a tokenizer of one character a token, a row, and the adapter that the
// peer starts from.

import { fill } from "./hash.mjs";

export const SHAPE = { layers: 2, hidden: 256, heads: 4, feedForward: 768, vocab: 1024, rank: 8, alpha: 16, lr: 1e-3, decay: 0.01 };

/** Token t of the peer's row. */
const token = (t) => (t * 37) % SHAPE.vocab;
/** An id that the row has not. */
const UNKNOWN = 1;
/** How token `id` is spelled: a character of its own. */
const spelled = (id) => String.fromCodePoint(0x4e00 + id);

const { hidden: d, feedForward: f } = SHAPE;
/** Name in Hugging Face's tree and in GGUF, outputs and inputs; in the order in which the peer numbers its tensors. */
const PROJECTIONS = [
  ["self_attn.q_proj", "attn_q", d, d], ["self_attn.k_proj", "attn_k", d, d], ["self_attn.v_proj", "attn_v", d, d],
  ["self_attn.o_proj", "attn_output", d, d], ["mlp.gate_proj", "ffn_gate", f, d], ["mlp.up_proj", "ffn_up", f, d], ["mlp.down_proj", "ffn_down", d, f],
];
/** The embedding is 1, and a projection's A follows its weight. */
const number = (layer, projection) => 2 + 2 * (PROJECTIONS.length * layer + projection);

/** One row of `rows` tokens: the last is the end of the sequence, so one fewer has a target. */
export function row(rows) {
  return JSON.stringify({ text: Array.from({ length: rows - 1 }, (_, t) => spelled(token(t))).join("") });
}

/** The peer keeps a layer as `[in, out]`; a file has `[out, in]`, and the rows of rotated heads interleaved: pair j is rows 2j and 2j + 1. */
function weight(layer, projection) {
  const [name, , out, inputs] = PROJECTIONS[projection];
  const theirs = fill(number(layer, projection), inputs * out, inputs ** -0.5);
  const half = d / SHAPE.heads / 2;
  const rotated = name.endsWith("q_proj") || name.endsWith("k_proj");
  const source = (o) => (rotated ? o - (o % (2 * half)) + (o % 2) * half + ((o % (2 * half)) >> 1) : o);
  return Float32Array.from({ length: out * inputs }, (_, i) => theirs[(i % inputs) * out + source(Math.floor(i / inputs))]);
}

/** The bytes of the GGUF. */
export function gguf(rows) {
  const ones = () => new Float32Array(d).fill(1);
  const tensors = [["token_embd", [d, SHAPE.vocab], fill(1, SHAPE.vocab * d, 0.02)], ["output_norm", [d], ones()]];
  for (let layer = 0; layer < SHAPE.layers; layer += 1) {
    for (const norm of ["attn_norm", "ffn_norm"]) tensors.push([`blk.${layer}.${norm}`, [d], ones()]);
    PROJECTIONS.forEach(([, name, out, inputs], p) => tensors.push([`blk.${layer}.${name}`, [inputs, out], weight(layer, p)]));
  }
  const tokens = Array.from({ length: SHAPE.vocab }, (_, id) => spelled(id));
  const facts = [
    ["general.architecture", text("llama")], ["general.name", text("step S")],
    ["llama.block_count", u32(SHAPE.layers)], ["llama.embedding_length", u32(d)], ["llama.attention.head_count", u32(SHAPE.heads)],
    ["llama.feed_forward_length", u32(f)], ["llama.context_length", u32(2048)], ["llama.attention.layer_norm_rms_epsilon", f32(1e-5)],
    ["tokenizer.ggml.model", text("llama")], ["tokenizer.ggml.tokens", list(STRING, tokens.map(bare))],
    ["tokenizer.ggml.scores", list(F32, tokens.map(() => bytes(4, (view) => view.setFloat32(0, 0, true))))],
    ["tokenizer.ggml.unknown_token_id", u32(UNKNOWN)], ["tokenizer.ggml.eos_token_id", u32(token(rows - 1))],
    ["tokenizer.ggml.add_bos_token", flag(false)], ["tokenizer.ggml.add_space_prefix", flag(false)],
  ];
  let offset = 0;
  const table = tensors.map(([name, shape, values]) => {
    const entry = [bare(`${name}.weight`), word(shape.length), ...shape.map(long), word(0), long(offset)];
    offset += Math.ceil(values.byteLength / ALIGN) * ALIGN;
    return entry;
  });
  const header = [new TextEncoder().encode("GGUF"), word(3), long(tensors.length), long(facts.length), facts.map(([key, value]) => [bare(key), value]), table];
  const padded = (part) => [part, new Uint8Array((ALIGN - (part.byteLength % ALIGN)) % ALIGN)];
  const head = Buffer.concat(header.flat(Infinity));
  return Buffer.concat([head, ...tensors.map(([, , values]) => new Uint8Array(values.buffer))].flatMap(padded));
}

/** The files of the adapter that the peer starts from: A hashed like the weights, B zero. */
export function adapter() {
  const tensors = [];
  for (let layer = 0; layer < SHAPE.layers; layer += 1) {
    PROJECTIONS.forEach(([name, , out, inputs], p) => {
      const module = `base_model.model.model.layers.${layer}.${name}`;
      tensors.push([`${module}.lora_A.weight`, [SHAPE.rank, inputs], fill(number(layer, p) + 1, SHAPE.rank * inputs, inputs ** -0.5)]);
      tensors.push([`${module}.lora_B.weight`, [out, SHAPE.rank], new Float32Array(out * SHAPE.rank)]);
    });
  }
  const header = {};
  let end = 0;
  for (const [name, shape, values] of tensors) header[name] = { dtype: "F32", shape, data_offsets: [end, (end += values.byteLength)] };
  const head = Buffer.from(JSON.stringify(header));
  const config = { peft_type: "LORA", task_type: "CAUSAL_LM", r: SHAPE.rank, lora_alpha: SHAPE.alpha, target_modules: PROJECTIONS.map(([name]) => name.split(".")[1]) };
  return {
    "adapter_config.json": Buffer.from(JSON.stringify(config)),
    "adapter_model.safetensors": Buffer.concat([long(head.length), head, ...tensors.map(([, , values]) => new Uint8Array(values.buffer))]),
  };
}

// The words of a GGUF header: little-endian numbers, strings with their length in front, typed values.

const ALIGN = 32;
const [U32, F32, BOOL, STRING, ARRAY] = [4, 6, 7, 8, 9];

function bytes(count, write) {
  const made = new Uint8Array(count);
  write(new DataView(made.buffer));
  return made;
}
const word = (x) => bytes(4, (view) => view.setUint32(0, x, true));
const long = (x) => bytes(8, (view) => view.setBigUint64(0, BigInt(x), true));
const bare = (string) => {
  const utf8 = new TextEncoder().encode(string);
  return Buffer.concat([long(utf8.length), utf8]);
};
const text = (string) => [word(STRING), bare(string)];
const u32 = (x) => [word(U32), word(x)];
const f32 = (x) => [word(F32), bytes(4, (view) => view.setFloat32(0, x, true))];
const flag = (on) => [word(BOOL), Uint8Array.of(on ? 1 : 0)];
const list = (kind, items) => [word(ARRAY), word(kind), long(items.length), ...items];
