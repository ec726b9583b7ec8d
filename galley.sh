#!/usr/bin/env bash
# galley.sh: the front door of a source tree on Debian 12. It installs the packages that are missing, builds what is out of date,
# and runs what it was asked:
#   ./galley.sh render "a red apple" -o apple.png   any command of the client; the first word decides
#   ./galley.sh test [full]                         the test suite; full adds sanitizers, fuzzing and long fault runs
#   ./galley.sh test golden|cases FOLDER            one folder of reference data or behaviour cases
#   ./galley.sh toolkit                             a CUDA toolkit into build/toolkit, for the CUDA module (nothing else of the machine is touched)
#   ./galley.sh vgpu-env N                          environment that gives a program N simulated GPUs: env $(./galley.sh vgpu-env 8) PROGRAM
# Exit: that of the program; 2 when something is missing and may not or cannot be installed from here.
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
build=$root/build/release

build_packages="cmake ninja-build gcc libc6-dev pkg-config libnng-dev libmsgpack-dev libsqlite3-dev libyaml-dev libpng-dev libjansson-dev
  libutf8proc-dev libsodium-dev libsystemd-dev libchafa-dev libglib2.0-dev"
test_packages="nng-utils libcmocka-dev python3 python3-venv python3-numpy"
full_packages="clang libclang-rt-14-dev"
cuda_packages="g++"
# One release of CUDA, in the form of NVIDIA's Python wheels.
cuda_wheels="nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
  nvidia-cuda-nvrtc==13.0.88 nvidia-cublas==13.1.0.3 nvidia-cudnn-cu13==9.19.0.56"

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
  [ -z "$(find "$root"/{CMakeLists.txt,CMakePresets.json,cmake,common,graph,proto,supervisor,worker,client,kernels,tests} -newer "$1" \
    ! -name __pycache__ ! -name '*.pyc' -print -quit 2>/dev/null)" ]
}

# has_toolkit: the last configuration found a CUDA toolkit.
has_toolkit() { grep -qsxF "GALLEY_CUDA_FOUND:INTERNAL=TRUE" "$build/CMakeCache.txt"; }

# no_toolkit: says what to do, and ends.
no_toolkit() {
  local missing
  missing=$(sed -n 's/^GALLEY_CUDA_MISSING:INTERNAL=//p' "$build/CMakeCache.txt" 2>/dev/null || true)
  say "no CUDA toolkit was found${missing:+ (missing: $missing)}; simulated GPUs are built with one. This gets it (1 GB of downloads):"
  printf '  ./galley.sh toolkit\n' >&2
  exit 2
}

# build STAMP TARGET...: configures and builds the release preset unless STAMP is current. With the target "vgpu" a toolkit must be there. The CUDA module
# comes along where a GPU is, and where it was built before: it must be of one build with the programs.
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
    if has_toolkit; then
      [ ! -e /dev/nvidiactl ] && [ ! -e "$build/lib/galley/galley-cuda.so" ] || set -- "$@" galley-cuda
    elif [[ " $* " == *" vgpu "* ]]; then
      no_toolkit
    fi
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

# toolkit: the wheels, laid out as a toolkit is.
toolkit() {
  local to=$root/build/toolkit new=$root/build/toolkit.new wanted
  wanted=$(printf '%s\n' $cuda_wheels)
  if [ "$(cat "$to/wheels" 2>/dev/null)" = "$wanted" ]; then
    say "build/toolkit is there already: $("$to/bin/nvcc" --version | tail -n 2 | head -n 1)"
    return 0
  fi
  need $cuda_packages python3 python3-venv
  rm -rf "$new"
  mkdir -p "$new"
  say "getting NVIDIA's wheels (1 GB; they are under NVIDIA's licences, see build/toolkit/licences):" $cuda_wheels
  python3 -m venv "$new/venv" >&2 || { say "python3 -m venv failed"; exit 2; }
  "$new/venv/bin/pip" install -q --disable-pip-version-check --no-deps --no-compile --only-binary=:all: --target "$new/wheels" $cuda_wheels >&2 || {
    say "pip could not install the wheels"
    exit 2
  }
  mkdir -p "$new/tree/licences"
  local part
  for part in "$new"/wheels/nvidia/*/; do
    cp -al "$part". "$new/tree/"
  done
  for part in "$new"/wheels/*.dist-info; do
    find "$part" -iname 'licen[cs]e*' -type f -exec cp {} "$new/tree/licences/$(basename "$part" .dist-info).txt" \;
  done
  chmod -R u+rwX,a+rX "$new/tree"
  chmod a+x "$new"/tree/bin/* "$new"/tree/nvvm/bin/*
  printf 'extern "C" __global__ void k(float *x) { x[threadIdx.x] *= 2.f; }\n' >"$new/check.cu"
  "$new/tree/bin/nvcc" -fatbin -arch=sm_90 "$new/check.cu" -o "$new/check.fatbin" >&2 || { say "its nvcc does not compile"; exit 2; }
  printf '%s\n' "$wanted" >"$new/tree/wheels"
  rm -rf "$to"
  mv "$new/tree" "$to"
  rm -rf "$new"
  rm -f "$build/.programs" "$build/.everything" "$build/.vgpu"
  say "build/toolkit has $(sed -n 's/^#define CUDA_VERSION \([0-9]*\)0\([0-9]\)0$/CUDA \1.\2/p' "$to/include/cuda.h"), nvcc, cuBLASLt and cuDNN; the next build uses it"
}

# vgpu_env N: builds what is missing, then prints the environment and nothing else.
vgpu_env() {
  [[ $# -eq 1 && $1 =~ ^[0-9]+$ && $1 -ge 1 && $1 -le 16 ]] || { say "usage: galley.sh vgpu-env N, with N from 1 to 16"; exit 2; }
  local path=$build/vgpu
  if ! has_toolkit || ! current "$build/.everything"; then
    has_toolkit || rm -f "$build/.vgpu"    # one that was installed since is found
    if ! current "$build/.vgpu"; then
      need $build_packages $cuda_packages
      build "$build/.vgpu" galleyd galley-worker galley galley-cuda vgpu
    fi
  fi
  [[ ":${LD_LIBRARY_PATH:-}:" == *":$path:"* ]] && path=$LD_LIBRARY_PATH || path=$path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  printf 'LD_LIBRARY_PATH=%s\nVGPU_DEVICES=%d\n' "$path" "$1"
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
  toolkit)
    [ $# -eq 1 ] || { say "usage: galley.sh toolkit"; exit 2; }
    toolkit
    ;;
  vgpu-env)
    shift
    vgpu_env "$@"
    ;;
  *)
    programs
    exec "$build/bin/galley" "$@"
    ;;
esac
