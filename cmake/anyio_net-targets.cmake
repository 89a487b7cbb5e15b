# The targets, for the installed config and for the source tree alike. The includer sets
# anyio_net_include_dir and anyio_net_components.
#
#   anyio_net::anyio_net   the header, C++20, threads
#   anyio_net::openssl     the same with TLS by OpenSSL 3
#   anyio_net::mbedtls     the same with TLS by mbedTLS, 2.28 or 3.2 and later
#
# What a component lacks is in anyio_net_<component>_missing.

find_package(Threads QUIET)

if(Threads_FOUND AND NOT TARGET anyio_net::anyio_net)
  add_library(anyio_net::anyio_net INTERFACE IMPORTED)
  target_include_directories(anyio_net::anyio_net INTERFACE "${anyio_net_include_dir}")
  target_compile_features(anyio_net::anyio_net INTERFACE cxx_std_20)
  target_link_libraries(anyio_net::anyio_net INTERFACE Threads::Threads)
endif()

function(anyio_net_add_component name macro)
  if(TARGET anyio_net::anyio_net AND NOT TARGET anyio_net::${name})
    add_library(anyio_net::${name} INTERFACE IMPORTED)
    target_compile_definitions(anyio_net::${name} INTERFACE ${macro})
    target_link_libraries(anyio_net::${name} INTERFACE anyio_net::anyio_net ${ARGN})
  endif()
endfunction()

if("openssl" IN_LIST anyio_net_components)
  find_package(OpenSSL 3 QUIET)
  if(OpenSSL_FOUND)
    anyio_net_add_component(openssl ANYIO_NET_OPENSSL OpenSSL::SSL OpenSSL::Crypto)
  else()
    set(anyio_net_openssl_missing "OpenSSL 3 was not found")
  endif()
endif()

if("mbedtls" IN_LIST anyio_net_components)
  # Its own package, where it brings one: Debian's does not.
  find_package(MbedTLS CONFIG QUIET)
  if(MbedTLS_FOUND AND TARGET MbedTLS::mbedtls)
    anyio_net_add_component(mbedtls ANYIO_NET_MBEDTLS MbedTLS::mbedtls MbedTLS::mbedx509 MbedTLS::mbedcrypto)
  else()
    find_path(ANYIO_NET_MBEDTLS_INCLUDE_DIR mbedtls/ssl.h)
    find_library(ANYIO_NET_MBEDTLS_LIBRARY mbedtls)
    find_library(ANYIO_NET_MBEDX509_LIBRARY mbedx509)
    find_library(ANYIO_NET_MBEDCRYPTO_LIBRARY mbedcrypto)
    mark_as_advanced(ANYIO_NET_MBEDTLS_INCLUDE_DIR ANYIO_NET_MBEDTLS_LIBRARY ANYIO_NET_MBEDX509_LIBRARY
      ANYIO_NET_MBEDCRYPTO_LIBRARY)
    if(ANYIO_NET_MBEDTLS_INCLUDE_DIR AND ANYIO_NET_MBEDTLS_LIBRARY AND ANYIO_NET_MBEDX509_LIBRARY
        AND ANYIO_NET_MBEDCRYPTO_LIBRARY)
      anyio_net_add_component(mbedtls ANYIO_NET_MBEDTLS "${ANYIO_NET_MBEDTLS_LIBRARY}"
        "${ANYIO_NET_MBEDX509_LIBRARY}" "${ANYIO_NET_MBEDCRYPTO_LIBRARY}")
      if(TARGET anyio_net::mbedtls)
        target_include_directories(anyio_net::mbedtls INTERFACE "${ANYIO_NET_MBEDTLS_INCLUDE_DIR}")
      endif()
    else()
      set(anyio_net_mbedtls_missing "mbedTLS was not found")
    endif()
  endif()
endif()
