/** Small LLaMA-family models that people publish as GGUF files. Sizes are the publishers'; nothing is fetched before a click. */

export interface BasePreset {
  name: string;
  parameters: string;
  format: string;
  /** Bytes of the file, rounded. */
  bytes: number;
  licence: string;
  url: string;
  note: string;
}

const hub = (repository: string, file: string): string => `https://huggingface.co/${repository}/resolve/main/${file}`;

export const BASE_PRESETS: BasePreset[] = [
  {
    name: "stories260K",
    parameters: "0.26 M",
    format: "F32",
    bytes: 1.2e6,
    licence: "MIT",
    url: hub("ggml-org/models-moved", "tinyllamas/stories260K.gguf"),
    note: "tiny stories, for trying a download",
  },
  {
    name: "SmolLM2 135M Instruct",
    parameters: "135 M",
    format: "Q8_0",
    bytes: 145e6,
    licence: "Apache-2.0",
    url: hub("bartowski/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct-Q8_0.gguf"),
    note: "chats; trains on any GPU",
  },
  {
    name: "SmolLM2 360M Instruct",
    parameters: "362 M",
    format: "Q8_0",
    bytes: 386e6,
    licence: "Apache-2.0",
    url: hub("HuggingFaceTB/SmolLM2-360M-Instruct-GGUF", "smollm2-360m-instruct-q8_0.gguf"),
    note: "chats better",
  },
  {
    name: "TinyLlama 1.1B Chat",
    parameters: "1.1 B",
    format: "Q4_0",
    bytes: 638e6,
    licence: "Apache-2.0",
    url: hub("TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF", "tinyllama-1.1b-chat-v1.0.Q4_0.gguf"),
    note: "chats; wants a GPU with memory to spare",
  },
  {
    name: "Llama 3.2 1B Instruct",
    parameters: "1.24 B",
    format: "Q4_K_M",
    bytes: 808e6,
    licence: "Llama 3.2",
    url: hub("bartowski/Llama-3.2-1B-Instruct-GGUF", "Llama-3.2-1B-Instruct-Q4_K_M.gguf"),
    note: "chats; wants a GPU with memory to spare",
  },
];

/** The model that is part of the package. */
export const EMBEDDED_NAME = "weblora demo";
