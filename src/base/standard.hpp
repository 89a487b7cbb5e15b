// Pointers, durations and small algorithms of the standard library.
//
// Every program that includes the library compiles what is included here. <algorithm>, <chrono> and <memory>
// bring ranges, time zones and parallel algorithms, which cost a compiler a third as much as all the rest;
// libstdc++ keeps what is needed in headers of its own, which are taken where they exist. Simulation and
// engines of TLS, which few programs define, include what they like.
#pragma once

#include <string>  // first: it tells which library this is

#if defined(__GLIBCXX__) && __has_include(<bits/chrono.h>) && __has_include(<bits/unique_ptr.h>) && \
    __has_include(<bits/shared_ptr.h>) && __has_include(<bits/stl_algobase.h>)
#include <bits/chrono.h>
#include <bits/shared_ptr.h>
#include <bits/stl_algobase.h>
#include <bits/unique_ptr.h>
#else
#include <algorithm>
#include <chrono>
#include <memory>
#endif
