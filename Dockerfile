# denoised in two stages: build with the compiler, run without it. BASE must be a Debian 12.
#   docker build -t denoised .
#   docker run --read-only --tmpfs /tmp -v denoised:/var/lib/denoised -p 127.0.0.1:8080:8080 denoised \
#     serve --listen 0.0.0.0:8080 --insecure --data /var/lib/denoised --model fashion-mnist=/usr/share/denoised/models/fashion-mnist
# deploy/docker-compose.yml is the way to run it for others: behind nginx, over a Unix socket.
ARG BASE=debian:12-slim

FROM ${BASE} AS build
WORKDIR /src
COPY deploy/deps.mk deploy/packages.sh deploy/cuda.mk deploy/
RUN sh deploy/packages.sh install build
COPY Makefile LICENSE ./
COPY engine engine
COPY api api
COPY server server
COPY migrations migrations
COPY models models
ARG COMMIT=unknown
RUN make install COMMIT=${COMMIT} DESTDIR=/out PREFIX=/usr

FROM ${BASE}
COPY deploy/deps.mk deploy/packages.sh /tmp/deploy/
RUN sh /tmp/deploy/packages.sh install runtime && rm -rf /tmp/deploy /var/lib/apt/lists/* \
    && groupadd --gid 10001 denoised && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin denoised \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/denoised && install -d -o 10001 -g 10001 -m 0770 /run/denoised
COPY --from=build /out/usr /usr
USER 10001:10001
VOLUME ["/var/lib/denoised"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/bin/denoised", "health", "--socket", "/run/denoised/denoised.sock"]
ENTRYPOINT ["/usr/bin/denoised"]
CMD ["serve", "--listen", "unix:/run/denoised/denoised.sock", "--data", "/var/lib/denoised", "--model", "fashion-mnist=/usr/share/denoised/models/fashion-mnist"]
