#include "common/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>

void sha256(const void *data, size_t n, uint8_t ret[SHA256_BYTES])
{
    crypto_hash_sha256(ret, data, n);
}

enum status sha256_file(const char *path, uint8_t ret[SHA256_BYTES], int64_t *ret_bytes, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return FAIL_ERRNO(err, "cannot open '%s'", path);
    crypto_hash_sha256_state state;
    crypto_hash_sha256_init(&state);
    int64_t total = 0;
    uint8_t chunk[1 << 16];
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n == 0)
            break;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            enum status s = FAIL_ERRNO(err, "cannot read '%s'", path);
            close(fd);
            return s;
        }
        crypto_hash_sha256_update(&state, chunk, (unsigned long long)n);
        total += n;
    }
    close(fd);
    crypto_hash_sha256_final(&state, ret);
    if (ret_bytes)
        *ret_bytes = total;
    return ST_OK;
}

void hex(const uint8_t *data, size_t n, char *ret)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        ret[2 * i] = digits[data[i] >> 4];
        ret[2 * i + 1] = digits[data[i] & 15];
    }
    ret[2 * n] = 0;
}

/* uuid_text writes 16 bytes as a version 4 (random) UUID, RFC 4122 section 4.4. */
static void uuid_text(uint8_t bytes[16], char ret[UUID_TEXT])
{
    bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40);
    bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80);
    static const int group_bytes[] = {4, 2, 2, 2, 6};
    char *out = ret;
    for (int g = 0; g < 5; g++) {
        hex(bytes, (size_t)group_bytes[g], out);
        bytes += group_bytes[g];
        out += 2 * group_bytes[g];
        *out++ = '-';
    }
    out[-1] = 0;
}

void uuid_new(char ret[UUID_TEXT])
{
    uint8_t bytes[16];
    randombytes_buf(bytes, sizeof bytes);
    uuid_text(bytes, ret);
}

void uuid_derived(const char *text, uint64_t n, char ret[UUID_TEXT])
{
    uint8_t little_endian[8], digest[SHA256_BYTES];
    for (int i = 0; i < 8; i++)
        little_endian[i] = (uint8_t)(n >> (8 * i));
    crypto_hash_sha256_state state;
    crypto_hash_sha256_init(&state);
    crypto_hash_sha256_update(&state, (const unsigned char *)text, strlen(text) + 1);
    crypto_hash_sha256_update(&state, little_endian, sizeof little_endian);
    crypto_hash_sha256_final(&state, digest);
    uuid_text(digest, ret);
}
