# The handshake process: driven over its channel by a fake supervisor.
add_library(ktrunk_test_handshake_process STATIC fake_supervisor.cc)
target_include_directories(ktrunk_test_handshake_process PUBLIC ${PROJECT_SOURCE_DIR}/tests
                                                                ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(ktrunk_test_handshake_process PUBLIC ktrunk_options ktrunk::handshake ktrunk::ipc
                                                           ktrunk::test_support GTest::gtest)
ktrunk_test(handshake_relay_tests relay_test.cc LIBS ktrunk_test_handshake_process)
ktrunk_test(handshake_process_tests process_test.cc LIBS ktrunk_test_handshake_process)
ktrunk_test(handshake_connector_tests connector_test.cc LIBS ktrunk_test_handshake_process)
ktrunk_test(handshake_event_loop_tests event_loop_test.cc LIBS ktrunk::base)
ktrunk_test(handshake_process_kernel_tests process_kernel_test.cc LIBS ktrunk_test_handshake_process ktrunk::test_ktls
            LABELS kernel)
ktrunk_test(handshake_program_tests program_test.cc LIBS ktrunk_test_handshake_process)
target_compile_definitions(handshake_program_tests PRIVATE
                           KTRUNK_HANDSHAKE_PROGRAM="$<TARGET_FILE:ktrunkd-handshake>")
add_dependencies(handshake_program_tests ktrunkd-handshake)
ktrunk_test(handshake_resolver_tests resolver_test.cc LIBS ktrunk_test_handshake_process)
