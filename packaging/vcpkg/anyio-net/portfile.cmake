# An overlay port, which installs the tree that it lies in:
#
#   vcpkg install anyio-net --overlay-ports=anyio_net/packaging/vcpkg
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
set(VCPKG_BUILD_TYPE release) # a header: nothing differs in a debug build

vcpkg_cmake_configure(SOURCE_PATH "${SOURCE_PATH}" OPTIONS -DANYIO_NET_INSTALL=ON)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(PACKAGE_NAME anyio_net CONFIG_PATH share/cmake/anyio_net)
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/share/doc")
foreach(engine openssl mbedtls)
  if(NOT engine IN_LIST FEATURES) # it names a package that may be absent
    file(REMOVE "${CURRENT_PACKAGES_DIR}/share/pkgconfig/anyio_net-${engine}.pc")
  endif()
endforeach()
vcpkg_fixup_pkgconfig()

file(INSTALL "${CMAKE_CURRENT_LIST_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
