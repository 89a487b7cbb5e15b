#pragma once
#include "tls_openssl.hpp"
