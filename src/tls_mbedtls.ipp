#pragma once
#include "tls_mbedtls.hpp"
