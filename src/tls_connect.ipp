#pragma once
#include "tls_connect.hpp"
