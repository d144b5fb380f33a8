/* Where webhooks may go, case by case, and how they are signed. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include "server/webhook_policy.h"
#include "server/webhook_signature.h"
#include "tests/test.h"

static const char *const named[] = {"hooks.test:9000", "127.0.0.1:8099", "[::1]:8443", NULL};

typedef struct url_case {
    const char *url, *rule; /* rule NULL: taken */
} url_case;

#define PUBLIC "must lead to a public address"
#define NUMBERS "must write an address as four decimal numbers"
#define NAME "must have the full name of a public host"
#define SCHEME "must begin with https://"
#define PORT "must have port 443 or 8443"
#define RANGE "must have a port from 1 to 65535, or none"
#define USER "must have no user information"
#define HOST "must have a host of letters, digits, '.' and '-'; write other names in their xn-- form"
#define LABEL "must have a host name that DNS can have, without a dot at its end"
#define ESCAPE "must be a URL: other characters are written as %XX"

#define SIXTY "abcdefghijklmnopqrstuvwxyz-0123-abcdefghijklmnopqrstuvwxyz-4"

static const url_case urls[] = {
    {"https://example.com/hook", NULL},
    {"HTTPS://Example.COM/hook?a=b", NULL},
    {"https://example.com", NULL},
    {"https://example.com:443", NULL},
    {"https://example.com:8443/", NULL},
    {"https://xn--bcher-kva.example/", NULL},
    {"https://93.184.216.34/", NULL},
    {"https://[2606:2800:220:1:248:1893:25c8:1946]/", NULL},
    {"https://example.com?token=1", NULL},
    {"https://example.com/a@b", NULL},
    {"http://example.com/", SCHEME},
    {"ftp://example.com/", SCHEME},
    {"file:///etc/passwd", SCHEME},
    {"gopher://example.com/", SCHEME},
    {"//example.com/", SCHEME},
    {"https:/example.com", SCHEME},
    {"javascript:alert(1)", SCHEME},
    {"example.com/hook", SCHEME},
    {"https://", HOST},
    {"https:///path", HOST},
    {"https://:443/", HOST},
    {"https://exa mple.com/", ESCAPE},
    {"https://example.com/\r\nX: y", ESCAPE},
    {"https://example.com/\tx", ESCAPE},
    {"https://example.com\\@127.0.0.1/", ESCAPE},
    {"https://example.com/<x>", ESCAPE},
    {"https://b\xc3\xbc"
     "cher.example/",
     ESCAPE},
    {"https://example.com/#part", "must have no fragment"},
    {"https://user@example.com/", USER},
    {"https://user:secret@example.com/", USER},
    {"https://example.com:443@127.0.0.1/", USER},
    {"https://@127.0.0.1/", USER},
    {"https://example.com:80/", PORT},
    {"https://example.com:22/", PORT},
    {"https://example.com:8080/", PORT},
    {"https://example.com:0/", RANGE},
    {"https://example.com:65536/", RANGE},
    {"https://example.com:4294967739/", RANGE},
    {"https://example.com:/", RANGE},
    {"https://example.com:443x/", RANGE},
    {"https://example.com:-443/", RANGE},
    {"https://exam_ple.com/", HOST},
    {"https://exa%6dple.com/", HOST},
    {"https://127.0.0.1/", PUBLIC},
    {"https://127.1/", NUMBERS},
    {"https://2130706433/", NUMBERS},
    {"https://0x7f000001/", NUMBERS},
    {"https://0x7f.0.0.1/", NUMBERS},
    {"https://0177.0.0.1/", NUMBERS},
    {"https://127.0.0.1./", LABEL},
    {"https://127.0.0.0x1/", NUMBERS},
    {"https://0/", NUMBERS},
    {"https://0.0.0.0/", PUBLIC},
    {"https://10.0.0.1/", PUBLIC},
    {"https://100.64.0.1/", PUBLIC},
    {"https://169.254.169.254/latest/meta-data/", PUBLIC},
    {"https://172.16.0.1/", PUBLIC},
    {"https://172.31.255.255/", PUBLIC},
    {"https://192.168.1.1/", PUBLIC},
    {"https://198.18.0.1/", PUBLIC},
    {"https://224.0.0.1/", PUBLIC},
    {"https://255.255.255.255/", PUBLIC},
    {"https://[::1]/", PUBLIC},
    {"https://[::]/", PUBLIC},
    {"https://[::ffff:10.0.0.1]/", PUBLIC},
    {"https://[::ffff:93.184.216.34]/", PUBLIC},
    {"https://[fc00::1]/", PUBLIC},
    {"https://[fe80::1]/", PUBLIC},
    {"https://[fe80::1%25eth0]/", HOST},
    {"https://[ff02::1]/", PUBLIC},
    {"https://[64:ff9b::7f00:1]/", PUBLIC},
    {"https://[2002:7f00:1::]/", PUBLIC},
    {"https://[2001:0:7f00:1::]/", PUBLIC},
    {"https://[2001:db8::1]/", PUBLIC},
    {"https://[::1/", HOST},
    {"https://[]/", HOST},
    {"https://[v1.x]/", HOST},
    {"https://[::1]x/", HOST},
    {"https://[12345::1]/", "has an address that is none"},
    {"https://localhost/", NAME},
    {"https://localhost./", LABEL},
    {"https://LOCALHOST/", NAME},
    {"https://a.localhost/", NAME},
    {"https://printer.local/", NAME},
    {"https://metadata.google.internal/", NAME},
    {"https://db/", NAME},
    {"https://a..b.com/", LABEL},
    {"https://.example.com/", LABEL},
    {"https://-example.com/", LABEL},
    {"https://example-.com/", LABEL},
    {"https://example.-com/", LABEL},
    {"https://" SIXTY "abc.com/", NULL},
    {"https://" SIXTY "abcd.com/", LABEL},
    /* Named by the operator, exactly */
    {"http://hooks.test:9000/x", NULL},
    {"http://HOOKS.test:9000/x", NULL},
    {"https://hooks.test:9000/", NULL},
    {"http://127.0.0.1:8099/", NULL},
    {"https://[::1]:8443/", NULL},
    {"http://hooks.test/x", SCHEME},
    {"http://hooks.test:9001/x", SCHEME},
    {"https://127.0.0.1:8443/", PUBLIC},
    {"http://user@hooks.test:9000/", USER},
    {"http://hooks.test:9000/#x", "must have no fragment"},
    {"http://127.1:8099/", SCHEME},
};

static void every_url_is_judged(void)
{
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        webhook_url url;
        const char *rule = "";
        const bool fine = webhook_url_check(&url, urls[i].url, named, &rule);
        CHECK_MSG(fine == !urls[i].rule, "%s: %s", urls[i].url, rule ? rule : "taken");
        CHECK_MSG(fine || strcmp(rule, urls[i].rule) == 0, "%s: %s, not: %s", urls[i].url, rule, urls[i].rule);
    }
}

static void a_long_host_is_refused(void)
{
    char url[400] = "https://";
    const char *rule = NULL;
    webhook_url read;
    memset(url + 8, 'a', 300);
    strcpy(url + 308, ".com/");
    CHECK(!webhook_url_check(&read, url, NULL, &rule) && rule && strcmp(rule, HOST) == 0);
}

static bool is_public(const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
        return webhook_address_is_public((const struct sockaddr *)&v4);
    return inet_pton(AF_INET6, text, &v6.sin6_addr) == 1 && webhook_address_is_public((const struct sockaddr *)&v6);
}

/* The edges of every block, and their neighbours. */
static void blocks_end_where_they_should(void)
{
    static const char *const open[] = {"1.0.0.0",         "9.255.255.255",   "11.0.0.0",        "100.63.255.255", "100.128.0.0",
                                       "126.255.255.255", "128.0.0.0",       "169.253.255.255", "169.255.0.0",    "172.15.255.255",
                                       "172.32.0.0",      "192.0.1.0",       "192.167.255.255", "192.169.0.0",    "198.17.255.255",
                                       "198.20.0.0",      "223.255.255.255", "2000::1",         "2001:200::1",    "2001:4860:4860::8888",
                                       "2003::1",         "3ffe::1",         "2a00:1450::1"};
    static const char *const shut[] = {"0.255.255.255",
                                       "10.255.255.255",
                                       "100.64.0.0",
                                       "100.127.255.255",
                                       "127.255.255.255",
                                       "169.254.0.0",
                                       "172.16.0.0",
                                       "172.31.255.255",
                                       "192.0.0.255",
                                       "192.0.2.1",
                                       "192.88.99.1",
                                       "192.168.255.255",
                                       "198.18.0.0",
                                       "198.19.255.255",
                                       "198.51.100.1",
                                       "203.0.113.7",
                                       "224.0.0.0",
                                       "239.1.1.1",
                                       "240.0.0.1",
                                       "255.255.255.255",
                                       "::",
                                       "::1",
                                       "::ffff:1.2.3.4",
                                       "::1.2.3.4",
                                       "64:ff9b::1",
                                       "64:ff9b:1::1",
                                       "100::1",
                                       "1fff::1",
                                       "2001::1",
                                       "2001:1ff::1",
                                       "2001:db8::1",
                                       "2002::1",
                                       "3fff::1",
                                       "4000::1",
                                       "5f00::1",
                                       "fc00::1",
                                       "fdff::1",
                                       "fe80::1",
                                       "fec0::1",
                                       "ff02::1"};
    struct sockaddr none = {.sa_family = AF_UNIX};
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++)
        CHECK_MSG(is_public(open[i]), "%s is public", open[i]);
    for (size_t i = 0; i < sizeof shut / sizeof shut[0]; i++)
        CHECK_MSG(!is_public(shut[i]), "%s is not public", shut[i]);
    CHECK(!webhook_address_is_public(&none));
}

/* RFC 4231, cases 1, 2 and 6. */
static void hmacs_agree_with_the_rfc(void)
{
    unsigned char out[DN_SHA256_BYTES], key[131];
    char hex[DN_SHA256_HEX_BYTES];
    static const char long_text[] = "Test Using Larger Than Block-Size Key - Hash Key First";
    memset(key, 0x0b, 20);
    webhook_hmac_sha256(out, key, 20, "Hi There", 8);
    dn_sha256_hex(hex, out);
    CHECK_MSG(strcmp(hex, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7") == 0, "%s", hex);
    webhook_hmac_sha256(out, "Jefe", 4, "what do ya want for nothing?", 28);
    dn_sha256_hex(hex, out);
    CHECK_MSG(strcmp(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843") == 0, "%s", hex);
    memset(key, 0xaa, 131);
    webhook_hmac_sha256(out, key, 131, long_text, sizeof long_text - 1);
    dn_sha256_hex(hex, out);
    CHECK_MSG(strcmp(hex, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54") == 0, "%s", hex);
}

/* The example of the Standard Webhooks specification's reference implementations. */
static void signatures_agree_with_standard_webhooks(void)
{
    char path[] = "/tmp/dn-secret-XXXXXX", value[WEBHOOK_SIGNATURE_BYTES];
    static const char line[] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n";
    webhook_secret secret;
    dn_error error;
    const int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, line, sizeof line - 1) == (ssize_t)sizeof line - 1);
    close(fd);
    const dn_status read = webhook_secret_read(&secret, path, &error);
    unlink(path);
    CHECK_OK(read, error);
    CHECK(webhook_sign(value, &secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, "{\"test\": 2432232314}"));
    CHECK_MSG(strcmp(value, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=") == 0, "%s", value);
}

static void bad_secrets_are_refused(void)
{
    static const char *const lines[] = {"", "short", "whsec_", "whsec_!!!!", "whsec_YWJj", "12345678901234567890123"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        char path[] = "/tmp/dn-secret-XXXXXX";
        webhook_secret secret;
        dn_error error;
        const int fd = mkstemp(path);
        CHECK(fd >= 0 && write(fd, lines[i], strlen(lines[i])) == (ssize_t)strlen(lines[i]));
        close(fd);
        const dn_status status = webhook_secret_read(&secret, path, &error);
        unlink(path);
        CHECK_MSG(status == DN_INVALID && strstr(error.message, path), "\"%s\" was taken", lines[i]);
    }
}

int main(void)
{
    RUN(every_url_is_judged);
    RUN(a_long_host_is_refused);
    RUN(blocks_end_where_they_should);
    RUN(hmacs_agree_with_the_rfc);
    RUN(signatures_agree_with_standard_webhooks);
    RUN(bad_secrets_are_refused);
    return test_end();
}
