"""What the golden and embedded-model scripts share: our number generator, a plain LLaMA, GGUF in and out."""
