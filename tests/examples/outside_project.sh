#!/usr/bin/env bash
# Installs this build into a folder of its own, builds each example against it as an outside project, and runs the
# examples' tests with what came out.
# Usage: outside_project.sh CMAKE SOURCE BUILD EXAMPLES_TEST EXAMPLES_KERNEL_TEST
set -euo pipefail
cmake="$1" source="$2" build="$3" tests="$4" kernel_tests="$5"

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
prefix="$folder/prefix"
mkdir -p "$prefix/examples"

# What the build was made with, so that the libraries fit: compiler, launcher, type and flags (sanitizers are flags).
cached() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }
options=("-DCMAKE_PREFIX_PATH=$prefix" "-DCMAKE_CXX_COMPILER=$(cached CMAKE_CXX_COMPILER)"
  "-DCMAKE_CXX_COMPILER_LAUNCHER=$(cached CMAKE_CXX_COMPILER_LAUNCHER)"
  "-DCMAKE_BUILD_TYPE=$(cached CMAKE_BUILD_TYPE)" "-DCMAKE_CXX_FLAGS=$(cached CMAKE_CXX_FLAGS)")
sanitize="$(cached KTRUNK_SANITIZE)"
[[ -z "$sanitize" ]] || options+=("-DCMAKE_CXX_FLAGS=$(cached CMAKE_CXX_FLAGS) -fsanitize=$sanitize")

# Only what other programs get, and the service: the rest of the build need not be there.
"$cmake" --install "$build" --prefix "$prefix" --component development >"$folder/log"
"$cmake" --install "$build" --prefix "$prefix" --component handshake >>"$folder/log"

for example in ktls-echo handoff; do
  # Outside: a copy of the example alone, so that nothing of the tree is found by chance.
  cp -r "$source/examples/$example" "$folder/$example"
  "$cmake" -S "$folder/$example" -B "$folder/$example/build" "${options[@]}" >"$folder/log" 2>&1 ||
    { cat "$folder/log" && exit 1; }
  "$cmake" --build "$folder/$example/build" --verbose >"$folder/log" 2>&1 || { cat "$folder/log" && exit 1; }
  if grep -q -e "-Werror" -e "-Wconversion" -e "$source" "$folder/log"; then
    cat "$folder/log"
    echo "$example: our own warnings, or our own tree, came along"
    exit 1
  fi
  cp "$folder/$example/build/$example" "$prefix/examples/"
done

# ktls/ alone: without libssl, and without libcrypto as no key is derived.
for library in libssl libcrypto; do
  if ldd "$prefix/examples/handoff" | grep "$library"; then
    echo "handoff is linked with $library"
    exit 1
  fi
done

export KTRUNK_EXAMPLES_PREFIX="$prefix"
"$tests" --gtest_brief=1
"$kernel_tests" --gtest_brief=1
