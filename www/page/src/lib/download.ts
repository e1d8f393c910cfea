/** Handing a file to the user. */

/** Saves bytes or text under a name, through the browser's own download. */
export function save(name: string, content: Uint8Array | string, type = "application/octet-stream"): void {
  const blob = new Blob([content as BlobPart], { type });
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // Some browsers read the address after the click has returned.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Letters, digits, dots and dashes: a name that every file system takes. */
export function fileName(text: string): string {
  return text.normalize("NFKD").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[-.]+|[-.]+$/g, "").slice(0, 80) || "weblora";
}
