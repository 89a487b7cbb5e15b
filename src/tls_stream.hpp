#pragma once
#include "tls.hpp"
