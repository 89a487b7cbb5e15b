// anyio_net.cppm: anyio_net.hpp as a C++20 module. A program includes the standard headers that it uses, <coroutine>
// for coroutines, and then says `import anyio_net;`. Macros of the header are not exported.
//
// Generated: do not edit. tools/make/export_names.py finds the names in anyio_net.hpp.
//
// Macros that configure the library are set where this file is compiled. With ANYIO_NET_SPLIT, which makes importing
// cheaper, one other file holds the definitions, as for programs that include the header.
//
// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the anyio_net authors. The licence's text is in LICENSE.
module;

#include "anyio_net.hpp"

export module anyio_net;

export namespace anyio {
using anyio::accept_operation;
using anyio::aclose_operation;
using anyio::as_result;
using anyio::backend;
using anyio::buffered_stream;
using anyio::byte_queue;
using anyio::byte_stream;
using anyio::channel;
using anyio::connect_tcp;
using anyio::connect_tls;
using anyio::connect_unix;
using anyio::connected_udp_socket;
using anyio::connected_unix_datagram_socket;
using anyio::const_buffer;
using anyio::copy;
using anyio::copy_operation;
using anyio::create_connected_udp_socket;
using anyio::create_connected_unix_datagram_socket;
using anyio::create_memory_stream_pair;
using anyio::create_tcp_listener;
using anyio::create_udp_socket;
using anyio::create_unix_datagram_socket;
using anyio::create_unix_listener;
using anyio::create_unix_listener_operation;
using anyio::create_unix_stream_pair;
using anyio::datagram_socket;
using anyio::descriptor_stream;
using anyio::duration;
using anyio::errc;
using anyio::error;
using anyio::event;
using anyio::event_operation;
using anyio::fail_after;
using anyio::fail_at;
using anyio::fd_message;
using anyio::fd_stream;
using anyio::get;
using anyio::getaddrinfo;
using anyio::getnameinfo;
using anyio::ip_address;
using anyio::ip_datagram_socket;
using anyio::ip_endpoint;
using anyio::loop;
using anyio::loop_handle;
using anyio::make_error_code;
using anyio::memory_stream;
using anyio::move_on_after;
using anyio::move_on_at;
using anyio::mutable_buffer;
using anyio::name_info;
using anyio::notify_closing;
using anyio::now;
using anyio::operation_tag;
using anyio::operator co_await;
using anyio::packet_info;
using anyio::peer_credentials;
using anyio::permit;
using anyio::raise;
using anyio::receive_batch_operation;
using anyio::receive_datagram_into_operation;
using anyio::receive_datagram_operation;
using anyio::receive_fd_packet_operation;
using anyio::receive_fds_operation;
using anyio::receive_from_operation;
using anyio::receive_operation;
using anyio::receive_packet_operation;
using anyio::receive_string_operation;
using anyio::receive_unix_into_operation;
using anyio::receive_unix_packet_operation;
using anyio::receive_view_operation;
using anyio::received;
using anyio::relay;
using anyio::relay_operation;
using anyio::relay_options;
using anyio::relay_result;
using anyio::result;
using anyio::result_group;
using anyio::run;
using anyio::semaphore;
using anyio::send_batch_operation;
using anyio::send_datagram_operation;
using anyio::send_eof_operation;
using anyio::send_fd_packet_operation;
using anyio::send_fds_operation;
using anyio::send_file_operation;
using anyio::send_operation;
using anyio::send_packet_operation;
using anyio::send_queue;
using anyio::send_to_host_operation;
using anyio::send_to_operation;
using anyio::send_to_path_operation;
using anyio::send_unix_datagram_operation;
using anyio::serve_options;
using anyio::serve_until_interrupted;
using anyio::serve_until_options;
using anyio::signal_receiver;
using anyio::sleep;
using anyio::sleep_operation;
using anyio::sleep_until;
using anyio::socket_stream;
using anyio::system_backend;
using anyio::task;
using anyio::task_group;
using anyio::tcp_connect_options;
using anyio::tcp_listener;
using anyio::tcp_listener_options;
using anyio::tcp_stream;
using anyio::time_point;
using anyio::timeout_operation;
using anyio::tls_config;
using anyio::tls_context;
using anyio::tls_engine;
using anyio::tls_info;
using anyio::tls_listener;
using anyio::tls_options;
using anyio::tls_pipe;
using anyio::tls_status;
using anyio::tls_stream;
using anyio::tls_unwrapped;
using anyio::tls_verify;
using anyio::tls_version;
using anyio::tls_wrap_operation;
using anyio::to_string;
using anyio::udp_batch;
using anyio::udp_options;
using anyio::udp_packet;
using anyio::udp_received;
using anyio::udp_socket;
using anyio::unique_fd;
using anyio::unix_datagram_options;
using anyio::unix_datagram_socket;
using anyio::unix_fd_packet;
using anyio::unix_listener;
using anyio::unix_listener_options;
using anyio::unix_packet;
using anyio::unix_received;
using anyio::unix_stream;
using anyio::wait_operation;
using anyio::wait_readable;
using anyio::wait_writable;
using anyio::when_all;
using anyio::when_any;
#if ANYIO_NET_EXCEPTIONS
using anyio::broken_resource;
using anyio::busy_resource;
using anyio::cancelled;
using anyio::closed_resource;
using anyio::deadlock;
using anyio::delimiter_not_found;
using anyio::end_of_stream;
using anyio::exception;
using anyio::fds_truncated;
using anyio::incomplete_read;
using anyio::invalid_argument;
using anyio::name_resolution;
using anyio::not_supported;
using anyio::os_error;
using anyio::protocol_error;
using anyio::timed_out;
using anyio::tls_error;
#endif
#if defined(ANYIO_NET_MBEDTLS)
using anyio::mbedtls_context;
#endif
#if defined(ANYIO_NET_OPENSSL)
using anyio::openssl_context;
#endif
#if defined(ANYIO_NET_SIM)
using anyio::fault_backend;
#endif
}

#if defined(ANYIO_NET_SIM)
export namespace anyio::sim {
using anyio::sim::draw;
using anyio::sim::draw_bytes;
using anyio::sim::faults;
using anyio::sim::fuzz;
using anyio::sim::heal;
using anyio::sim::options;
using anyio::sim::parse_choices;
using anyio::sim::profile;
using anyio::sim::raise;
using anyio::sim::report;
using anyio::sim::run;
using anyio::sim::set_faults;
using anyio::sim::set_link;
using anyio::sim::set_name;
}
#endif

#if !defined(ANYIO_NET_NO_THREADS)
export namespace anyio::to_thread {
using anyio::to_thread::run_sync;
}
#endif
