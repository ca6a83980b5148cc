# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
#
# What the other scripts share; to be sourced. Messages go to stderr: stdout belongs to results.

export LC_ALL=C.UTF-8
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# A relative path would mean another place after every cd.
cache=$(realpath -m -- "${MMIOFD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mmiofd}")
readonly root cache
# Pinned, since scripts and Sources/Lab rely on its options.
readonly virtme_version=1.42

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

# Runs a command as root, if that can be done.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        fail "this needs root and there is no sudo; run as root: $*"
    fi
}

apt_update() {
    say "updating the package lists"
    # One broken third-party source must not stop what the Debian ones can give.
    as_root apt-get -qq update >&2 || say "apt-get update complained (above); going on with what there is"
}

# lock_cache DIRECTORY: holds a lock on the cache, or on a directory in it, until the script ends, so that two runs never
# fill the same one.
lock_cache() {
    local directory=$1
    mkdir -p "$directory"
    exec {cache_lock}>"$directory/lock"
    if ! flock -n "$cache_lock"; then
        say "waiting for another run that fills $directory"
        flock "$cache_lock"
    fi
}

# download DIRECTORY PACKAGE...: each package's .deb in DIRECTORY; what is there already stays.
download() {
    local directory=$1 package file options=() partial
    shift
    # Downloads into a home directory need no _apt user.
    ((EUID != 0)) || options=(-o APT::Sandbox::User=root)
    mkdir -p "$directory"
    for package; do
        for file in "$directory/$package"_*.deb; do
            [[ ! -e $file ]] || continue 2
        done
        say "downloading $package"
        partial=$(mktemp -d "$directory/.partial.XXXXXX")
        if ! (cd "$partial" && apt-get -qq "${options[@]}" download "$package" >&2); then
            rm -rf "$partial"
            return 1
        fi
        mv "$partial"/*.deb "$directory/"
        rmdir "$partial"
    done
}

# download_or_update DIRECTORY PACKAGE...: as download, with one more try after an update of the package lists.
download_or_update() {
    download "$@" && return
    apt_update
    download "$@" || fail "cannot download ${*:2}; see apt-get's words above, and whether this machine is online"
}
