// Whether WebGPU is there, asked before anything large is loaded.

import type { Support } from "./types.js";

/** The part of the WebGPU API that is looked at here; TypeScript's DOM library does not have it. */
interface GpuAdapter {
  features: ReadonlySet<string>;
  limits: object;
  info?: { vendor?: string; architecture?: string; device?: string; description?: string };
}
interface Gpu {
  requestAdapter(options?: { powerPreference?: "low-power" | "high-performance" }): Promise<GpuAdapter | null>;
}

/** What every kernel of this package needs; WebGPU's defaults, which every conforming adapter has. */
const FLOOR: Record<string, number> = {
  maxStorageBuffersPerShaderStage: 8,
  maxComputeInvocationsPerWorkgroup: 256,
  maxStorageBufferBindingSize: 128 * 1024 * 1024,
};

const BROWSERS =
  "use Chrome or Edge 113, Firefox 141 (Windows) or 145 (macOS), Safari 26, or a later version; on Linux, Chrome may need --enable-unsafe-webgpu and --enable-features=Vulkan, " +
  "Firefox dom.webgpu.enabled in about:config";

export async function support(): Promise<Support> {
  const none = (reason: string): Support => ({ webgpu: false, reason, features: [], limits: {} });
  if (!globalThis.isSecureContext) return none("WebGPU needs a secure page; open it over https or from localhost");
  const gpu = (globalThis.navigator as { gpu?: Gpu }).gpu;
  if (!gpu) return none(`this browser has no WebGPU; ${BROWSERS}`);
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" }).catch(() => null);
  if (!adapter) return none(`this browser has WebGPU but no adapter for this machine; ${BROWSERS}`);
  const limits: Record<string, number> = {};
  for (const name in adapter.limits) {
    const value = (adapter.limits as Record<string, unknown>)[name];
    if (typeof value === "number") limits[name] = value;
  }
  const info = adapter.info ?? {};
  const name = [info.description || info.device, info.vendor, info.architecture].filter(Boolean).join(", ");
  const found: Support = { webgpu: true, features: [...adapter.features].sort(), limits };
  if (name) found.adapter = name;
  for (const [limit, least] of Object.entries(FLOOR)) {
    if ((limits[limit] ?? 0) < least) return { ...found, webgpu: false, reason: `this GPU has ${limit} ${limits[limit]}, and ${least} are needed` };
  }
  return found;
}
