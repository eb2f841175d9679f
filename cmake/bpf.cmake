# SPDX-License-Identifier: Apache-2.0
# Kernel programs. Without clang, libbpf or libelf the agent is built without
# them, and says so when asked (RETRIEVER_BPF=OFF by hand does the same).
option(RETRIEVER_BPF "Build the kernel programs (needs clang, libbpf)" ON)

if(RETRIEVER_BPF)
    pkg_check_modules(LIBBPF IMPORTED_TARGET libbpf>=1.0)
    pkg_check_modules(LIBELF IMPORTED_TARGET libelf)
    find_program(RETRIEVER_BPF_CLANG NAMES clang-14 clang)
    find_program(RETRIEVER_BPF_STRIP NAMES llvm-strip-14 llvm-strip)
    set(missing)
    foreach(need "LIBBPF_FOUND libbpf-dev (1.0 or later)"
        "LIBELF_FOUND libelf-dev" "RETRIEVER_BPF_CLANG clang"
        "RETRIEVER_BPF_STRIP llvm")
        string(REGEX MATCH "^([^ ]+) (.*)$" need "${need}")
        if(NOT ${CMAKE_MATCH_1})
            list(APPEND missing "${CMAKE_MATCH_2}")
        endif()
    endforeach()
    if(missing)
        list(JOIN missing ", " missing)
        # One line, which a warning would break.
        message(NOTICE "No kernel programs in this build: to have them, install "
            "${missing} and configure again; -DRETRIEVER_BPF=OFF silences this.")
        set(RETRIEVER_BPF OFF)
    endif()
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    set(_bpf_arch arm64)
else()
    set(_bpf_arch x86)
endif()

# retriever_bpf_object(<target> <name>): compile <name>.bpf.c into an object and
# embed it in <target>, where loader.c finds it as bpf_<name>_begin and _end.
function(retriever_bpf_object target name)
    set(source ${CMAKE_CURRENT_SOURCE_DIR}/${name}.bpf.c)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.bpf.o)
    add_custom_command(OUTPUT ${object}
        COMMAND ${RETRIEVER_BPF_CLANG} -target bpf -mcpu=v3 -O2 -g
            -D__TARGET_ARCH_${_bpf_arch} -I${PROJECT_SOURCE_DIR}
            -I/usr/include/${CMAKE_LIBRARY_ARCHITECTURE}
            -Wall -Wextra -Wno-unused-parameter -Werror -MD -MF ${object}.d
            -c ${source} -o ${object}
        COMMAND ${RETRIEVER_BPF_STRIP} -g ${object}
        DEPENDS ${source} DEPFILE ${object}.d
        COMMENT "BPF ${name}.bpf.o" VERBATIM)
    set(embed ${CMAKE_CURRENT_BINARY_DIR}/${name}_embed.c)
    file(WRITE ${embed}.new "__asm__(\".section .rodata\\n.balign 16\\n\"
        \".globl bpf_${name}_begin\\n.hidden bpf_${name}_begin\\n\"
        \"bpf_${name}_begin:\\n.incbin \\\"${object}\\\"\\n\"
        \".globl bpf_${name}_end\\n.hidden bpf_${name}_end\\n\"
        \"bpf_${name}_end:\\n.previous\\n\");\n")
    file(COPY_FILE ${embed}.new ${embed} ONLY_IF_DIFFERENT)
    set_source_files_properties(${embed} PROPERTIES OBJECT_DEPENDS ${object})
    target_sources(${target} PRIVATE ${embed})
endfunction()
