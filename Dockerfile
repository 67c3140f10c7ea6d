# The agent's image, for those who have Docker; `make image` makes the same one without. All but the labels is done by image/.
#
#   docker build -t ghcr.io/kubectl-gadget/agent:VERSION .
#   docker build --build-arg VARIANT=bcc -t ghcr.io/kubectl-gadget/agent:VERSION-bcc .
#   docker buildx build --platform linux/amd64,linux/arm64 …     nothing is emulated: packages are unpacked, not run

FROM --platform=$BUILDPLATFORM debian:trixie-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends \
      bpftool clang-19 libbpf-dev mmdebstrap python3-minimal python3-numpy python3-pip python3-yaml
WORKDIR /source
COPY LICENSE ./
COPY image ./image
COPY bpf ./bpf
COPY gadgets ./gadgets
COPY kubectl_gadget ./kubectl_gadget
ARG VARIANT=default
ARG TARGETARCH
COPY requirements-dev.txt ./
# Only zig, with the hash in requirements-dev.txt.
RUN sed -n '/^ziglang==/,$p' requirements-dev.txt >zig.txt \
 && python3 -m pip install --break-system-packages --no-cache-dir --require-hashes -r zig.txt
RUN python3 -m kubectl_gadget.gadgets.build \
 && python3 image/build.py --variant "$VARIANT" --architecture "$TARGETARCH" --unpack /image

FROM scratch
COPY --from=build /image/ /
ENV PATH=/usr/sbin:/usr/bin LC_ALL=C.UTF-8
LABEL org.opencontainers.image.title="kubectl-gadget agent" \
      org.opencontainers.image.licenses="Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)"
ENTRYPOINT ["/usr/bin/python3", "-I", "-m", "kubectl_gadget.agent"]
CMD ["idle"]
