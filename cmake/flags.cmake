# SPDX-License-Identifier: Apache-2.0
# The one place that sets compiler and linker flags: every target of ours links
# retriever_flags. GCC 12 and clang 14 both.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
include(CheckPIESupported)
check_pie_supported(LANGUAGES C)

find_program(RETRIEVER_CCACHE ccache)
if(RETRIEVER_CCACHE AND NOT DEFINED CMAKE_C_COMPILER_LAUNCHER)
    set(CMAKE_C_COMPILER_LAUNCHER "${RETRIEVER_CCACHE}")
endif()

add_library(retriever_flags INTERFACE)
target_include_directories(retriever_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_definitions(retriever_flags INTERFACE
    _GNU_SOURCE RETRIEVER_VERSION="${PROJECT_VERSION}")
target_compile_options(retriever_flags INTERFACE
    -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes
    -Wpointer-arith -Wundef -Wvla -Wwrite-strings -Wformat=2
    -Wno-format-nonliteral -Wimplicit-fallthrough
    -fno-strict-aliasing -fno-omit-frame-pointer -fvisibility=hidden
    -fstack-protector-strong)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    target_compile_options(retriever_flags INTERFACE
        -Wduplicated-cond -Wlogical-op -fstack-clash-protection)
endif()
if(RETRIEVER_WERROR)
    target_compile_options(retriever_flags INTERFACE -Werror)
endif()
if(RETRIEVER_SANITIZE)
    target_compile_options(retriever_flags INTERFACE
        -fsanitize=${RETRIEVER_SANITIZE} -fno-sanitize-recover=all)
    target_link_options(retriever_flags INTERFACE
        -fsanitize=${RETRIEVER_SANITIZE})
elseif(CMAKE_BUILD_TYPE MATCHES "Rel")
    target_compile_options(retriever_flags INTERFACE
        -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
    target_link_options(retriever_flags INTERFACE
        -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--as-needed)
endif()
if(RETRIEVER_COVERAGE)
    target_compile_options(retriever_flags INTERFACE --coverage -O0)
    target_link_options(retriever_flags INTERFACE --coverage)
endif()

# retriever_headers(<target> <headers...>): the headers of a library. The target
# all_verify_interface_header_sets compiles each of them alone.
function(retriever_headers target)
    target_sources(${target} PUBLIC FILE_SET HEADERS
        BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${ARGN})
    set_target_properties(${target} PROPERTIES
        VERIFY_INTERFACE_HEADER_SETS ON)
endfunction()
