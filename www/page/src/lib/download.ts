/** Handing a file to the user. */

/** Saves bytes or text under a name, through the browser's own download. */
export function save(name: string, content: Uint8Array | string, type = "application/octet-stream"): void {
  saveFile(name, new Blob([content as BlobPart], { type }));
}

/** Saves a file that may be too large for memory: the browser copies it from where it is. */
export function saveFile(name: string, content: Blob): void {
  const url = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // Some browsers read the address after the click has returned, and copy for as long as the disk takes.
  setTimeout(() => URL.revokeObjectURL(url), 600_000);
}

/** Letters, digits, dots and dashes: a name that every file system takes. */
export function fileName(text: string): string {
  return text.normalize("NFKD").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[-.]+|[-.]+$/g, "").slice(0, 80) || "weblora";
}
