# What every target has in common: warnings, sanitizers, include root; and the helpers that make targets.

add_library(ktrunk_options INTERFACE)
target_include_directories(ktrunk_options INTERFACE ${PROJECT_SOURCE_DIR}/src)
target_compile_options(ktrunk_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor
                                                -Wold-style-cast -Wcast-qual -Wformat=2 -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # GCC 12 sees a string's storage freed that was never allocated when it inlines std::expected<..., Error>.
  target_compile_options(ktrunk_options INTERFACE -Wno-free-nonheap-object)
endif()
if(KTRUNK_WERROR)
  target_compile_options(ktrunk_options INTERFACE -Werror)
endif()
if(KTRUNK_SANITIZE)
  target_compile_options(ktrunk_options INTERFACE -fsanitize=${KTRUNK_SANITIZE} -fno-omit-frame-pointer
                                                  -fno-sanitize-recover=all)
  if(KTRUNK_SANITIZE MATCHES thread)
    # It knows no fences, and GCC says so. They order atomics among themselves only; where they order anything else, the
    # code says what it does instead.
    target_compile_options(ktrunk_options INTERFACE -Wno-tsan)
  endif()
  target_link_options(ktrunk_options INTERFACE -fsanitize=${KTRUNK_SANITIZE})
endif()
# Messages are looked at 32 octets at a time (sip/octets.h). A program that is built so says so in its file, and the
# loader refuses it on an older processor with that reason.
if(KTRUNK_ARCH)
  target_compile_options(ktrunk_options INTERFACE -march=${KTRUNK_ARCH})
  if(KTRUNK_ARCH MATCHES "^x86-64-v[234]$")
    set(KTRUNK_ARCH_LINK LINKER:-z,${KTRUNK_ARCH})
    target_link_options(ktrunk_options INTERFACE ${KTRUNK_ARCH_LINK})
  endif()
endif()
# A program maps only the libraries it calls: a worker must have no libcrypto, whatever its libraries' other parts use.
target_link_options(ktrunk_options INTERFACE -Wl,--as-needed)

# ktrunk_library(NAME sources...): the library of one folder of src/, as ktrunk_NAME and ktrunk::NAME.
# Who uses it from outside gets the include root and the language, and none of our own options.
function(ktrunk_library name)
  add_library(ktrunk_${name} STATIC ${ARGN})
  add_library(ktrunk::${name} ALIAS ktrunk_${name})
  target_link_libraries(ktrunk_${name} PUBLIC $<BUILD_INTERFACE:ktrunk_options>)
  target_include_directories(ktrunk_${name} INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/ktrunk>)
  target_compile_features(ktrunk_${name} PUBLIC cxx_std_23)
  target_link_options(ktrunk_${name} INTERFACE $<INSTALL_INTERFACE:${KTRUNK_ARCH_LINK}>)
  set_target_properties(ktrunk_${name} PROPERTIES EXPORT_NAME ${name})
endfunction()

# ktrunk_test_headers(TARGET): it uses the headers that test_main has precompiled.
function(ktrunk_test_headers target)
  target_precompile_headers(${target} REUSE_FROM ktrunk_test_main)
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    target_compile_options(${target} PRIVATE -fpch-preprocess) # for ccache
  endif()
endfunction()

# ktrunk_test(NAME sources... LIBS libraries... [LABELS labels...]): one GoogleTest program, its cases known to ctest.
# Labels: unit (anywhere), kernel (wants kernel TLS, skips visibly without it), system (starts the daemon).
function(ktrunk_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "LIBS;LABELS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  if(NOT arg_LABELS)
    set(arg_LABELS unit)
  endif()
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE ${arg_LIBS} ktrunk_options ktrunk::test_main)
  ktrunk_test_headers(${name})
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
                       PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}")
endfunction()
