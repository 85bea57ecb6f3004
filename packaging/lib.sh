# Shell functions that the scripts of this directory share. Sourced, not run.
# shellcheck shell=bash

say() { printf '\033[1m==> %s\033[0m\n' "$*" | if [[ -t 1 ]]; then cat; else sed 's/\x1b\[[0-9]*m//g'; fi; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

need_root() {
    [[ $EUID = 0 ]] || die "$1 needs root: run it with sudo"
}

# install_debian_packages LIST...: install what the lists name and the machine lacks. Needs no root if nothing is missing.
install_debian_packages() {
    local package missing=() sudo=()
    if ! command -v dpkg-query >/dev/null; then
        say "not a Debian machine: install by hand what $* name, if it isn't there"
        return
    fi
    while read -r package; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) = installed ]] || missing+=("$package")
    done < <(sed 's/#.*//; /^[[:space:]]*$/d' "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    say "installing Debian packages: ${missing[*]}"
    if [[ $EUID != 0 ]]; then
        command -v sudo >/dev/null || die "missing Debian packages and neither root nor sudo: apt-get install ${missing[*]}"
        sudo=(sudo)
    fi
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 update -q </dev/null ||
        say "apt-get update failed: trying with the package lists there are"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q install -y \
        --no-install-recommends "${missing[@]}" </dev/null
}

# packages_key VERSION LOCK...: what the Python packages of an environment are made from. VERSION as `python3 -V` says.
packages_key() { { cat requirements-build.lock "${@:2}"; echo "$1"; } | sha256sum; }

has_systemd() { [[ -d /run/systemd/system ]]; }

# write_unit FILE BIN DOC [LIB]: the systemd unit of that name with its paths filled in.
write_unit() {
    sed -e "s|@BIN@|$2|" -e "s|@DOC@|$3|" -e "s|@LIB@|${4:-}|" "packaging/${1##*/}" >"$1"
    chmod 644 "$1"
}

# load_settings BIN: what the daemon's configuration says, as variables.
# shellcheck disable=SC2034 # used by the scripts that source this
load_settings() {
    {
        read -r run_dir
        read -r state_dir
        read -r log_dir
        read -r netns_dir
        read -r bridge
        read -r nft_table
        read -r cgroup_root
        read -r PODRT_SOCKET
    } < <("$1/python" -c '
from podrt.config import load
c = load()
print(c.run_dir, c.state_dir, c.log_dir, c.netns_dir, c.bridge, c.nft_table, c.cgroup_root, c.socket, sep="\n")
')
    [[ -n $PODRT_SOCKET ]] || die "the configuration can't be read"
    export PODRT_SOCKET
}

# api_ready BIN: whether a daemon answers.
api_ready() { [[ -S $PODRT_SOCKET ]] && timeout 5 "$1/podrt" get nodes >/dev/null 2>&1; }
