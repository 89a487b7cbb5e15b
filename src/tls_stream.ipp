#pragma once
#include "tls_stream.hpp"
