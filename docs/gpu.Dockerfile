# weblora on an NVIDIA GPU in a container, through Vulkan. Needs NVIDIA's driver and container toolkit on the host.
#
#   docker build -f docs/gpu.Dockerfile -t weblora .
#   docker run --rm --gpus all weblora doctor --require-gpu
#   docker run --rm --gpus all -v "$PWD:/data" -v weblora-cache:/cache weblora train --require-gpu --model model.gguf --data rows.jsonl --out adapter
#
# AMD and Intel: `--device /dev/dri` instead of `--gpus all`, and mesa-vulkan-drivers among the packages below.

FROM rust:1.90-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo install --locked --path . --root /out

FROM debian:bookworm-slim
# libvulkan1: Vulkan's loader, which weblora opens when it starts.
# libx11-6, libxext6, libegl1, libgl1: what NVIDIA's Vulkan library (libGLX_nvidia.so.0) loads itself, also without a display. It comes from the
# host when the container starts; where one of these is missing it fails to load without a word, and no adapter answers.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libvulkan1 libx11-6 libxext6 libegl1 libgl1 ca-certificates \
 && rm -rf /var/lib/apt/lists/*
# The driver file that tells the loader of NVIDIA's library. Newer container toolkits bring it with the graphics capability, older ones do not.
RUN mkdir -p /etc/vulkan/icd.d \
 && echo '{"file_format_version": "1.0.0", "ICD": {"library_path": "libGLX_nvidia.so.0", "api_version": "1.3.0"}}' >/etc/vulkan/icd.d/nvidia_icd.json
# Without `graphics` the toolkit brings CUDA's libraries only, and Vulkan finds no GPU. `utility` is nvidia-smi.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=graphics,compute,utility
# Kernel choices that were measured on this GPU: keep the folder in a volume, or every container measures them again.
ENV XDG_CACHE_HOME=/cache
# Vulkan's loader wants a folder for the user's run-time files.
ENV XDG_RUNTIME_DIR=/run/weblora
RUN mkdir -p -m 700 /run/weblora /cache
COPY --from=build /out/bin/weblora /usr/local/bin/weblora
WORKDIR /data
ENTRYPOINT ["weblora"]
CMD ["doctor"]
