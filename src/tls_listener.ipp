#pragma once
#include "tls_listener.hpp"
