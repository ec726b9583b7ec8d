"""The front door, galley.sh, on a small tree of its own: builds, rebuilds, packages, arguments, exit codes."""
import os, shutil, stat, subprocess, sys, tempfile, traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CMAKE = """cmake_minimum_required(VERSION 3.25)
project(door C)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
foreach(program galley galleyd galley-worker)
  add_executable(${program} client/main.c)
endforeach()
set(GALLEY_CUDA_MISSING "nvcc, cuda.h" CACHE INTERNAL "")
"""
MAIN = """#include <stdio.h>
int main(int n, char **a) { for (int i = 1; i < n; i++) printf("[%%s]", a[i]); puts("%s"); return %d; }
"""
BUILDING = "building in build/release"
CUDA = """set(GALLEY_CUDA_FOUND TRUE CACHE INTERNAL "")
add_custom_target(vgpu COMMAND ${CMAKE_COMMAND} -E touch ${CMAKE_BINARY_DIR}/vgpu.made)
add_custom_target(galley-cuda COMMAND ${CMAKE_COMMAND} -E touch ${CMAKE_BINARY_DIR}/module.made)
"""
ALL_INSTALLED = """shift 2
for name; do printf 'installed:%s ' "$name"; done
"""
# python3 -m venv FOLDER, with a pip that "installs" wheels as NVIDIA lays them out.
VENV = r"""mkdir -p "$3/bin"
cat >"$3/bin/pip" <<'END'
#!/bin/sh
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/nvidia/cu13/bin" "$2/nvidia/cu13/nvvm/bin" "$2/nvidia/cu13/include" "$2/nvidia/cudnn/lib" "$2/nvidia_thing-1.dist-info/licenses"
printf '#!/bin/sh\necho release 13.0\necho build 1\n' >"$2/nvidia/cu13/bin/nvcc"
touch "$2/nvidia/cu13/nvvm/bin/cicc" "$2/nvidia/cudnn/lib/libcudnn.so.9"
echo '#define CUDA_VERSION 13000' >"$2/nvidia/cu13/include/cuda.h"
echo terms >"$2/nvidia_thing-1.dist-info/licenses/License.txt"
END
chmod +x "$3/bin/pip"
"""


class Door:
    def __init__(self, folder):
        self.tree, self.stubs, self.cwd = (os.path.join(folder, n) for n in ("tree", "stubs", "elsewhere"))
        for name in ("common", "graph", "proto", "supervisor", "worker", "client", "kernels", "cmake", "tests"):
            os.makedirs(os.path.join(self.tree, name))
        os.makedirs(self.stubs)
        os.makedirs(self.cwd)
        for name in ("galley.sh", "CMakePresets.json"):
            shutil.copy(os.path.join(ROOT, name), self.tree)
        self.write("CMakeLists.txt", CMAKE)
        self.program("one", 7)

    def write(self, name, text):
        with open(os.path.join(self.tree, name), "w") as f:
            f.write(text)

    def program(self, word, code):
        self.write("client/main.c", MAIN % (word, code))

    def stub(self, name, script):
        path = os.path.join(self.stubs, name)
        with open(path, "w") as f:
            f.write("#!/bin/sh\n" + script)
        os.chmod(path, stat.S_IRWXU)

    def run(self, *arguments, **more):
        env = dict(os.environ, PATH=self.stubs + ":" + os.environ["PATH"], **more)
        return subprocess.run([os.path.join(self.tree, "galley.sh"), *arguments], cwd=self.cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


def expect(result, code, out=None, err=None, not_err=None):
    said = "exit %d, stdout %r, stderr %r" % (result.returncode, result.stdout, result.stderr)
    assert result.returncode == code, "exit %d expected: %s" % (code, said)
    assert out is None or result.stdout == out, "stdout %r expected: %s" % (out, said)
    assert err is None or err in result.stderr, "%r expected: %s" % (err, said)
    assert not_err is None or not_err not in result.stderr, "%r not expected: %s" % (not_err, said)


def builds_then_runs_from_any_folder(door):
    expect(door.run("render", "a red apple", "-o", "x.png"), 7, "[render][a red apple][-o][x.png]one\n", BUILDING)
    expect(door.run("--version"), 7, "[--version]one\n", not_err=BUILDING)


def rebuilds_what_changed(door):
    expect(door.run(), 7, "one\n", BUILDING)
    door.program("two", 0)
    expect(door.run("x"), 0, "[x]two\n", BUILDING)
    door.write("client/main.c", "int x")
    expect(door.run(), 1, "", "the build failed")
    expect(door.run(), 1, "", "the build failed")
    door.program("three", 0)
    expect(door.run(), 0, "three\n")
    os.rename(door.tree, door.tree + "-moved")
    door.tree += "-moved"
    expect(door.run(), 0, "three\n", BUILDING)


def names_missing_packages_without_rights(door):
    door.stub("dpkg-query", "echo 'installed:cmake installed:gcc '\n")
    door.stub("id", "echo 1000\n")
    door.stub("sudo", "exit 1\n")
    door.stub("apt-get", "echo called >>%s/apt\n" % door.stubs)
    result = door.run("render")
    expect(result, 2, "", "sudo apt-get install --no-install-recommends ninja-build ")
    assert " cmake " not in result.stderr and "libcmocka-dev" not in result.stderr, "names what is there, or what render does not need: " + result.stderr
    assert not os.path.exists(door.stubs + "/apt"), "called apt-get without rights"


def installs_missing_packages_as_root(door):
    door.stub("dpkg-query", "echo 'not-installed:cmake '\n")
    door.stub("id", "echo 0\n")
    door.stub("apt-get", 'echo "$@" >>%s/apt\ncase "$*" in *update*) touch %s/updated;; *) test -e %s/updated;; esac\n' % ((door.stubs,) * 3))
    expect(door.run("render"), 7, err="installing cmake ninja-build")
    with open(door.stubs + "/apt") as f:
        calls = f.read().splitlines()
    assert len(calls) == 3 and "update" in calls[1] and "cmake" in calls[2], "install, update, install expected: %s" % calls
    expect(door.run("render"), 7, not_err="installing")     # all is built: packages are not looked at


def says_where_a_toolkit_comes_from(door):
    door.stub("dpkg-query", ALL_INSTALLED)
    expect(door.run("vgpu-env", "2"), 2, "", "./galley.sh toolkit\n")
    expect(door.run("vgpu-env", "2"), 2, "", "missing: nvcc")


def prints_the_environment_of_simulated_gpus(door):
    door.stub("dpkg-query", ALL_INSTALLED)
    door.run("vgpu-env", "2")
    door.write("CMakeLists.txt", CMAKE + CUDA)     # a toolkit has come
    path = os.path.join(door.tree, "build/release/vgpu")
    expect(door.run("vgpu-env", "3", LD_LIBRARY_PATH=""), 0, "LD_LIBRARY_PATH=%s\nVGPU_DEVICES=3\n" % path, BUILDING)
    expect(door.run("vgpu-env", "16", LD_LIBRARY_PATH="/a:/b"), 0, "LD_LIBRARY_PATH=%s:/a:/b\nVGPU_DEVICES=16\n" % path, not_err=BUILDING)
    expect(door.run("vgpu-env", "1", LD_LIBRARY_PATH=path + ":/a"), 0, "LD_LIBRARY_PATH=%s:/a\nVGPU_DEVICES=1\n" % path)
    for made in ("vgpu", "module"):
        assert os.path.exists(os.path.join(door.tree, "build/release", made + ".made")), "%s was not built" % made


def installs_a_toolkit(door):
    door.stub("dpkg-query", ALL_INSTALLED)
    door.stub("python3", VENV)
    stamp = os.path.join(door.tree, "build/release/.programs")
    expect(door.run(), 7, "one\n")
    expect(door.run("toolkit"), 0, "", "CUDA 13.0")
    for name in ("bin/nvcc", "lib/libcudnn.so.9", "include/cuda.h", "licences/nvidia_thing-1.txt"):
        assert os.path.exists(os.path.join(door.tree, "build/toolkit", name)), "no " + name
    assert not os.path.exists(stamp), "the next build does not look for the toolkit"
    assert sorted(os.listdir(os.path.join(door.tree, "build"))) == [".lock", "release", "toolkit"], "left something behind"
    door.stub("python3", "exit 1\n")
    expect(door.run("toolkit"), 0, "", "there already")
    shutil.rmtree(os.path.join(door.tree, "build/toolkit"))
    expect(door.run("toolkit"), 2, "", "venv failed")


def refuses_what_it_does_not_know(door):
    expect(door.run("vgpu-env"), 2, "", "usage")
    expect(door.run("vgpu-env", "0"), 2, "", "usage")
    expect(door.run("vgpu-env", "two"), 2, "", "usage")
    expect(door.run("toolkit", "13"), 2, "", "usage")
    expect(door.run("test", "nonsense"), 2, "", "no test suite 'nonsense'")
    expect(door.run("test", "golden"), 2, "", "usage")
    expect(door.run("test", "cases", "/no/such/folder"), 2, "", "no folder")


TESTS = [builds_then_runs_from_any_folder, rebuilds_what_changed, names_missing_packages_without_rights, installs_missing_packages_as_root, says_where_a_toolkit_comes_from,
         prints_the_environment_of_simulated_gpus, installs_a_toolkit, refuses_what_it_does_not_know]


def main():
    passed = failed = 0
    for test in TESTS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                test(Door(folder))
                passed += 1
                print("ok   " + test.__name__, flush=True)
            except (AssertionError, OSError, subprocess.SubprocessError):
                failed += 1
                print("FAIL %s: %s" % (test.__name__, traceback.format_exc(limit=2)), flush=True)
    print("%d passed, %d failed, 0 skipped" % (passed, failed))
    return 1 if failed else 0


sys.exit(main())
