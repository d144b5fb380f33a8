# Debian 12 packages by purpose: the one list that `make deps`, the Dockerfile and CI read (deploy/packages.sh).
BUILD_PACKAGES := gcc make libc6-dev libmicrohttpd-dev libcjson-dev libpng-dev libsqlite3-dev zlib1g-dev libcurl4-openssl-dev
RUNTIME_PACKAGES := libmicrohttpd12 libcjson1 libpng16-16 libsqlite3-0 zlib1g libcurl4 ca-certificates libopenblas0-pthread
TRY_PACKAGES := curl
TEST_PACKAGES := g++ faketime python3 python3-yaml curl nginx-light openssl procps util-linux dataset-fashion-mnist prometheus zsh fish mandoc man-db groff-base
# What tests/clients and tests/browser want beside; they say SKIP where it cannot be had.
CLIENTS_PACKAGES := chromium chromium-driver python3-pip python3-venv
FUZZ_PACKAGES := clang libclang-rt-dev
CHECK_PACKAGES := g++ clang-format cppcheck binutils python3 git
IMAGE_PACKAGES := buildah mmdebstrap bubblewrap curl docker-compose
ARM_PACKAGES := gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user mmdebstrap
PEERS_PACKAGES := python3-torch python3-venv g++
