# Runs the vcpkg port as vcpkg does, as far as it goes without vcpkg: `cmake -DPACKAGE=... -DBUILD=... -P vcpkg.cmake`
# installs it into PACKAGE. The functions do what the manual of vcpkg says of the arguments that the port uses, and refuse
# others.
cmake_policy(VERSION 3.21)
get_filename_component(port_dir "${CMAKE_CURRENT_LIST_DIR}/../../packaging/vcpkg/anyio-net" ABSOLUTE)
set(CURRENT_PACKAGES_DIR "${PACKAGE}")

file(READ "${port_dir}/vcpkg.json" manifest)
string(JSON PORT GET "${manifest}" name)
string(JSON VERSION GET "${manifest}" version)
if(NOT PORT MATCHES "^[a-z0-9]+(-[a-z0-9]+)*$")
  message(FATAL_ERROR "vcpkg.json: vcpkg accepts no port of this name: ${PORT}")
endif()
foreach(required description license)
  string(JSON text GET "${manifest}" ${required})
endforeach()

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY OUTPUT_QUIET)
endfunction()

function(arguments known)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "${known}" "OPTIONS;FILE_LIST")
  if(DEFINED arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown arguments: ${arg_UNPARSED_ARGUMENTS}")
  endif()
  foreach(name IN LISTS known ITEMS OPTIONS FILE_LIST)
    set(arg_${name} "${arg_${name}}" PARENT_SCOPE)
  endforeach()
endfunction()

function(vcpkg_cmake_configure)
  arguments("SOURCE_PATH" ${ARGN})
  run("${CMAKE_COMMAND}" -S "${arg_SOURCE_PATH}" -B "${BUILD}" -G Ninja "-DCMAKE_INSTALL_PREFIX=${PACKAGE}" ${arg_OPTIONS})
endfunction()

function(vcpkg_cmake_install)
  arguments("" ${ARGN})
  run("${CMAKE_COMMAND}" --install "${BUILD}")
endfunction()

# Moves the files to share/PACKAGE_NAME, and removes the folder `cmake` above them.
function(vcpkg_cmake_config_fixup)
  arguments("PACKAGE_NAME;CONFIG_PATH" ${ARGN})
  file(GLOB files "${PACKAGE}/${arg_CONFIG_PATH}/*")
  if(NOT files OR NOT VCPKG_BUILD_TYPE STREQUAL "release")
    message(FATAL_ERROR "vcpkg_cmake_config_fixup finds no files")
  endif()
  file(COPY ${files} DESTINATION "${PACKAGE}/share/${arg_PACKAGE_NAME}")
  get_filename_component(above "${PACKAGE}/${arg_CONFIG_PATH}" DIRECTORY)
  file(REMOVE_RECURSE "${above}")
endfunction()

# Makes the prefix of each file relative to where the file lies.
function(vcpkg_fixup_pkgconfig)
  arguments("" ${ARGN})
  file(GLOB files "${PACKAGE}/share/pkgconfig/*.pc")
  foreach(file IN LISTS files)
    file(READ "${file}" text)
    string(REGEX REPLACE "(^|\n)prefix=[^\n]*" "\\1prefix=\${pcfiledir}/../.." text "${text}")
    file(WRITE "${file}" "${text}")
  endforeach()
endfunction()

function(vcpkg_install_copyright)
  arguments("" ${ARGN})
  file(INSTALL ${arg_FILE_LIST} DESTINATION "${PACKAGE}/share/${PORT}")
  file(RENAME "${PACKAGE}/share/${PORT}/LICENSE" "${PACKAGE}/share/${PORT}/copyright")
endfunction()

include("${port_dir}/portfile.cmake")

# What vcpkg checks afterwards.
foreach(file share/${PORT}/copyright share/${PORT}/usage share/anyio_net/anyio_net-config.cmake include/anyio_net.hpp)
  if(NOT EXISTS "${PACKAGE}/${file}")
    message(FATAL_ERROR "the port installs no ${file}")
  endif()
endforeach()
foreach(misplaced cmake lib/cmake share/cmake share/doc debug)
  if(EXISTS "${PACKAGE}/${misplaced}")
    message(FATAL_ERROR "the port leaves ${misplaced}")
  endif()
endforeach()
