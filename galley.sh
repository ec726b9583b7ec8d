#!/usr/bin/env bash
# galley.sh: the front door of a source tree on Debian 12. It installs the packages that are missing, builds what is out of date,
# and runs what it was asked:
#   ./galley.sh render "a red apple" -o apple.png   any command of the client; the first word decides
#   ./galley.sh test [full]                         the test suite; full adds sanitizers, fuzzing and long fault runs
#   ./galley.sh test golden|cases FOLDER            one folder of reference data or behaviour cases
#   ./galley.sh vgpu-env N                          environment that gives a program N simulated GPUs
# Exit: that of the program; 2 when a package is missing and may not be installed from here.
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
build=$root/build/release

build_packages="cmake ninja-build gcc libc6-dev pkg-config libnng-dev libmsgpack-dev libsqlite3-dev libyaml-dev libpng-dev libjansson-dev
  libutf8proc-dev libsodium-dev libsystemd-dev libchafa-dev libglib2.0-dev"
test_packages="nng-utils libcmocka-dev python3 python3-venv python3-numpy"
full_packages="clang libclang-rt-14-dev"

say() { printf 'galley.sh: %s\n' "$*" >&2; }

# need PACKAGE...: installs the ones that are missing.
need() {
  command -v dpkg-query >/dev/null || return 0   # not Debian: cmake names what is missing
  local have missing=() as_root=()
  have=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' "$@" 2>/dev/null || true)"
  for package; do
    [[ $have == *" installed:$package "* ]] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
      say "these Debian packages are missing; install them and come again:"
      printf '  sudo apt-get install --no-install-recommends %s\n' "${missing[*]}" >&2
      exit 2
    fi
    as_root=(sudo -n)
  fi
  say "installing ${missing[*]}"
  local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}")
  # An old package list names files that are gone: refresh it when the first try fails.
  "${install[@]}" </dev/null >/dev/null 2>&1 || { "${as_root[@]}" apt-get update -qq </dev/null >&2 && "${install[@]}" </dev/null >&2; } || {
    say "apt-get could not install: ${missing[*]}"
    exit 2
  }
}

# current STAMP: nothing that is built from is newer than STAMP, and the tree has not moved since.
current() {
  [ -f "$1" ] && [ "$(<"$1")" = "$root" ] || return 1
  [ -z "$(find "$root"/{CMakeLists.txt,CMakePresets.json,common,graph,proto,supervisor,worker,client,kernels,tests} -newer "$1" \
    ! -name __pycache__ ! -name '*.pyc' -print -quit 2>/dev/null)" ]
}

# build STAMP TARGET...: configures and builds the release preset unless STAMP is current.
build() {
  local stamp=$1 log=$build/build.log jobs
  shift
  current "$stamp" && return 0
  mkdir -p "$build"
  exec 9>"$root/build/.lock"
  flock 9
  if ! current "$stamp"; then
    local began=$build/.began
    : >"$began"
    if [ -f "$build/CMakeCache.txt" ] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$build/CMakeCache.txt"; then
      rm -rf "$build/CMakeCache.txt" "$build/CMakeFiles"   # the tree has moved
    fi
    jobs=$(nproc)
    [ "$jobs" -le 2 ] || jobs=2
    say "building in build/release"
    (cd "$root" && cmake --preset release) >"$log" 2>&1 || { cat "$log" >&2; say "cmake failed"; exit 1; }
    if [ -t 2 ]; then
      NINJA_STATUS='[%f/%t] ' ninja -C "$build" -j "$jobs" "$@" >&2 || { say "the build failed"; exit 1; }
    else
      ninja -C "$build" -j "$jobs" "$@" >>"$log" 2>&1 || { tail -n 60 "$log" >&2; say "the build failed"; exit 1; }
    fi
    printf '%s\n' "$root" >"$stamp"
    touch -r "$began" "$stamp"   # what was saved during the build is built next time
  fi
  flock -u 9
  exec 9>&-
}

# programs: builds what the client needs. Packages are looked at only if something must be built.
programs() {
  current "$build/.programs" && return 0
  need $build_packages
  build "$build/.programs" galleyd galley-worker galley
}

everything() {
  need $build_packages $test_packages
  build "$build/.everything" all
}

case "${1:-}" in
  test)
    shift
    case "${1:-}" in
      golden | cases)
        [ $# -eq 2 ] || { say "usage: galley.sh test $1 FOLDER"; exit 2; }
        [ -d "$2" ] || { say "no folder '$2'"; exit 2; }
        everything
        exec "$build/bin/galley-$1" "$2"
        ;;
      "" | full)
        [ $# -le 1 ] || { say "usage: galley.sh test [full | golden FOLDER | cases FOLDER]"; exit 2; }
        need $build_packages $test_packages
        [ -z "${1:-}" ] || need $full_packages
        build "$build/.everything" all
        exec python3 -B "$root/tests/run.py" "$@"
        ;;
      *)
        say "no test suite '$1': usage: galley.sh test [full | golden FOLDER | cases FOLDER]"
        exit 2
        ;;
    esac
    ;;
  vgpu-env)
    say "vgpu-env: simulated GPUs are not available in this version"
    exit 2
    ;;
  *)
    programs
    exec "$build/bin/galley" "$@"
    ;;
esac
