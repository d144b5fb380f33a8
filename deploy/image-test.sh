#!/bin/bash
# Builds the container image without a Docker engine and tries it: buildah (chroot isolation, vfs) on a base made by mmdebstrap,
# then its root file system under bubblewrap as the image's user: read-only, no capabilities, no network but a Unix socket,
# nothing executable in /tmp, the daemon as process 1; and one POST. Prints PASS/FAIL lines. Needs root. IMAGE_BUILD_OPTIONS=--layers
# keeps finished steps between runs (and much disk). Not covered: a Docker or Kubernetes run time itself, its default seccomp
# profile, its health-check timer, and volumes' ownership on other storage drivers.
set -u
cd "$(dirname "$0")/.."
work=build/image
mkdir -p "$work"
failed=0
pass() { echo "PASS image_$1"; }
fail() { echo "FAIL image_$1: $2"; failed=1; }
store=(--root "$PWD/$work/storage" --runroot "$PWD/$work/run" --storage-driver vfs)
b() { buildah "${store[@]}" "$@"; }

if [ ! -s "$work/base.tar" ]; then
    echo "making a Debian 12 base"
    mmdebstrap --quiet --variant=minbase bookworm "$work/base.tmp.tar" || { fail base "mmdebstrap failed"; exit 1; }
    mv "$work/base.tmp.tar" "$work/base.tar"
fi
if ! b inspect --type image localhost/debian-base >/dev/null 2>&1; then
    container=$(b from scratch) && b add "$container" "$work/base.tar" / >/dev/null && b commit -q "$container" localhost/debian-base >/dev/null && b rm "$container" >/dev/null
fi
commit=$(git rev-parse --short=12 HEAD)
echo "building the image"
if b bud ${IMAGE_BUILD_OPTIONS:-} --format docker --isolation chroot --build-arg BASE=localhost/debian-base --build-arg COMMIT="$commit" -t localhost/denoised . >"$work/build.log" 2>&1; then
    pass builds
else
    tail -n 20 "$work/build.log"
    fail builds "see $work/build.log"
    exit 1
fi
b inspect --type image localhost/denoised | grep -q '"Healthcheck"' && pass health_check_stands_in_it || fail health_check_stands_in_it "no HEALTHCHECK in the image"
container=$(b from localhost/denoised)
# Seen from a folder that the image's user may enter: the storage itself is root's.
root=$(mktemp -d)
mount --bind "$(b mount "$container")" "$root" && chmod 0755 "$root" || { fail mount "cannot mount the image"; exit 1; }
data=$(mktemp -d); socket=$(mktemp -d); tmp=$(mktemp -d)
cleanup() {
    [ -n "${pid:-}" ] && kill -9 "$pid" 2>/dev/null
    umount "$tmp" "$root" 2>/dev/null
    b umount "$container" >/dev/null; b rm "$container" >/dev/null
    rm -rf "$data" "$socket" && rmdir "$tmp" "$root"
}
trap cleanup EXIT
chown 10001:10001 "$data" "$socket"; chmod 0755 "$socket"
# As in the compose file.
mount -t tmpfs -o size=64m,noexec,nosuid,nodev,mode=0700,uid=10001,gid=10001 tmpfs "$tmp" || { fail tmpfs "cannot mount a tmpfs"; exit 1; }

[ "$(stat -c %u:%g:%a "$root/var/lib/denoised")" = 10001:10001:750 ] && pass data_folder_owner || fail data_folder_owner "$(stat -c %u:%g:%a "$root/var/lib/denoised")"
[ ! -e "$root/usr/bin/gcc" ] && pass no_compiler || fail no_compiler "gcc is in the final image"

in_image() {
    setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
        bwrap --unshare-user --unshare-pid --unshare-net --unshare-ipc --uid 10001 --gid 10001 --ro-bind "$root" / --proc /proc --dev /dev \
        --bind "$tmp" /tmp --bind "$data" /var/lib/denoised --bind "$socket" /run/denoised --die-with-parent --as-pid-1 "$@"
}
if in_image /bin/sh -c '! touch /usr/x 2>/dev/null && cp /bin/true /tmp/x && ! /tmp/x 2>/dev/null && rm /tmp/x && grep -q "^CapEff:.0*$" /proc/self/status'; then
    pass confined
else
    fail confined "the root can be written, /tmp runs programs, or capabilities are left"
fi
version=$(in_image /usr/bin/denoised version)
case "$version" in *"$commit"*) pass starts ;; *) fail starts "version: $version" ;; esac
in_image /usr/bin/denoised serve --listen unix:/run/denoised/denoised.sock --data /var/lib/denoised \
    --model fashion-mnist=/usr/share/denoised/models/fashion-mnist >"$work/serve.log" 2>&1 &
pid=$!
call() { curl -sS --max-time 60 --unix-socket "$socket/denoised.sock" "$@"; }
for _ in $(seq 300); do [ "$(call -o /dev/null -w '%{http_code}' http://localhost/readyz 2>/dev/null)" = 200 ] && break; sleep 0.1; done
if call -o "$work/sneaker.png" -H 'Accept: image/png' -H 'Content-Type: application/json' \
    -d '{"class_label":"Sneaker","guidance_scale":2,"seed":42}' http://localhost/generate && head -c 8 "$work/sneaker.png" | od -An -tx1 | grep -q '89 50 4e 47'; then
    pass serves_a_png
else
    tail -n 5 "$work/serve.log"
    fail serves_a_png "no PNG came back"
fi
# What is built into the program has come with it: the page and what it names, the dialects, the description, the counters.
missing=
for word in 'text/html,*/*;q=0.8 / <!doctype html>' '*/* /metrics denoised_build_info{' '*/* /openapi.json "openapi"' '*/* /v1/models "object":"list"' \
    '*/* /sdapi/v1/sd-models "model_name"' '*/* /stats "images_per_second"'; do
    accept=${word%% *}; rest=${word#* }; path=${rest%% *}; wanted=${rest#* }
    call -H "Accept: $accept" "http://localhost$path" >"$work/answer" && grep -qiF "$wanted" "$work/answer" || missing="$missing $path"
done
for part in $(call -H 'Accept: text/html' http://localhost/ | grep -oE '(href|src)="page/[^"]+"' | cut -d '"' -f 2); do
    [ "$(call --compressed -o "$work/part" -w '%{http_code}' "http://localhost/$part")" = 200 ] && [ -s "$work/part" ] || missing="$missing /$part"
done
[ -z "$missing" ] && pass page_and_dialects || fail page_and_dialects "not as it should be:$missing"
in_image /usr/bin/denoised health --ready --socket /run/denoised/denoised.sock && pass health || fail health "denoised health failed"
# The shell's child is bwrap, and its child is the daemon.
kill -TERM "$(pgrep -P "$(pgrep -P "$pid")")"
for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
if kill -0 "$pid" 2>/dev/null; then
    fail drains "still running 10 s after SIGTERM"
else
    wait "$pid"; status=$?; pid=
    [ "$status" -eq 0 ] && pass drains || fail drains "exit status $status"
fi

# The compose files are at least well formed for the tool that reads them.
if command -v docker-compose >/dev/null 2>&1; then
    docker-compose -f deploy/docker-compose.yml config -q && docker-compose -f deploy/docker-compose.yml -f deploy/docker-compose.gpu.yml config -q && pass compose_config || fail compose_config "docker-compose config refused it"
else
    echo "SKIP image_compose_config: docker-compose is not installed"
fi
exit $failed
