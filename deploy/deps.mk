# Debian packages by purpose; `make deps` prints and installs them. One list for the README, the Dockerfile and CI.
BUILD_PACKAGES := gcc make libc6-dev libmicrohttpd-dev libcjson-dev libopenblas0-pthread libpng-dev libsqlite3-dev zlib1g-dev
