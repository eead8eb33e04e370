# The CMake package "ktrunk" for other programs: headers, static libraries, and what find_package needs.
include(CMakePackageConfigHelpers)

# Headers that only ktrunkd's own programs have a use for.
set(KTRUNK_PRIVATE_HEADERS
    "/handshake/(process|service|connector|listener|handshake|identity|resolver|udp_targets|back_off)\\.h$")

# ktrunk_install_library(NAME): the library of src/NAME and its headers, which keep their names: "NAME/header.h".
function(ktrunk_install_library name)
  install(TARGETS ktrunk_${name} EXPORT ktrunkTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
          COMPONENT development)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/src/${name} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/ktrunk
          COMPONENT development FILES_MATCHING PATTERN "*.h" REGEX "${KTRUNK_PRIVATE_HEADERS}" EXCLUDE)
endfunction()

# ktrunk_install_package(): ktrunkConfig.cmake, ktrunkTargets.cmake and the version file.
function(ktrunk_install_package)
  set(folder ${CMAKE_INSTALL_LIBDIR}/cmake/ktrunk)
  install(EXPORT ktrunkTargets NAMESPACE ktrunk:: DESTINATION ${folder} COMPONENT development)
  configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/ktrunkConfig.cmake.in
                                ${PROJECT_BINARY_DIR}/ktrunkConfig.cmake INSTALL_DESTINATION ${folder})
  # Before 1.0 a minor version may change what is in the headers.
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/ktrunkConfigVersion.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${PROJECT_BINARY_DIR}/ktrunkConfig.cmake ${PROJECT_BINARY_DIR}/ktrunkConfigVersion.cmake
          DESTINATION ${folder} COMPONENT development)
endfunction()
