/* GPT-2 in one C11 file, libc and libm only: how little a port outside Python does to be checked by karat.
 *
 *     cc -std=c11 -O2 -Wall -Wextra -Wpedantic candidates/c/gpt2.c -o gpt2 -lm
 *     karat check 'cmd:./gpt2 {inputs} {outputs}' gpt2
 *
 * karat runs the program once a case. It reads {inputs}/case.json (parameters, wanted checkpoints) and
 * {inputs}/inputs.safetensors (token ids, weights), and writes {outputs}/outputs.safetensors. The contract is float32.
 * What is wrong with the inputs is said on stderr, with exit code 1.
 *
 * The mathematics is that of candidates/plain/models/gpt2.py, function by function. Sources:
 *   the model    Radford et al., "Language Models are Unsupervised Multitask Learners" (2019)
 *   its layout   transformers/models/gpt2/modeling_gpt2.py: weights of linear layers are stored [in, out]
 *   layer norm   Ba et al., "Layer Normalization" (2016)
 *   GELU         Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016), section 2, the tanh formula
 *   safetensors  https://github.com/huggingface/safetensors, README, section "Format"
 *
 * B batch, T tokens, S tokens seen so far, D width, H heads, d = D / H, F FFN width, V vocabulary, P positions.
 */
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(float) == 4, "the contract float32 needs a float of 4 bytes");

#define CASE "case.json"
#define INPUTS "inputs.safetensors"
#define OUTPUTS "outputs.safetensors"
#define ANY SIZE_MAX /* in the shape that an input must have: any length but 0 */

enum { NAME_SIZE = 128, PATH_SIZE = 4096, CASE_LIMIT = 1 << 24, HEADER_LIMIT = 100 << 20, RANK = 4, LANES = 8 };

/* --- errors, text, memory ----------------------------------------------------------------------------------------- */

_Noreturn static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("gpt2: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

/* Prints into buffer and returns the length; a text that does not fit is an error, not a shorter text. */
static size_t print(char *buffer, size_t size, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(buffer, size, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= size)
        die("the text of \"%s\" does not fit into %zu bytes", format, size);
    return (size_t)length;
}

/* Memory that is released all at once: one list lives as long as the program, one as long as each forward pass. */
typedef struct Memory {
    struct Memory *next;
    max_align_t bytes[];
} Memory;

/* Returns size bytes of zeros. */
static void *take(Memory **memory, size_t size, const char *what) {
    Memory *taken = size < SIZE_MAX - sizeof *taken ? calloc(1, sizeof *taken + size) : NULL;
    if (taken == NULL)
        die("out of memory: %zu bytes for %s", size, what);
    taken->next = *memory;
    *memory = taken;
    return taken->bytes;
}

static void release(Memory **memory) {
    for (Memory *next; *memory != NULL; *memory = next) {
        next = (*memory)->next;
        free(*memory);
    }
}

/* --- tensors ------------------------------------------------------------------------------------------------------ */

typedef struct {
    const char *dtype; /* "F32" or "I64" */
    size_t n[RANK];    /* the shape, row-major, 0 behind the last axis: no axis may be empty */
    size_t count;      /* of elements */
    float *f;          /* the elements, NULL unless they are F32 */
    int64_t *i;        /* the elements, NULL unless they are I64 */
} Tensor;

/* A list of tensors: the inputs, or the outputs. */
typedef struct Named {
    struct Named *next;
    const char *name;
    Tensor tensor;     /* of an input: without elements, until input() has looked at it */
    size_t begin, end; /* of its bytes in the file, counted from the end of the header */
    char *bytes;       /* of an input: where they are in memory */
} Named;

static bool is_float(const char *dtype) {
    return strcmp(dtype, "F32") == 0;
}

static size_t byte_count(Tensor tensor) {
    return tensor.count * (is_float(tensor.dtype) ? sizeof *tensor.f : sizeof *tensor.i);
}

static const void *bytes_of(Tensor tensor) {
    return is_float(tensor.dtype) ? (const void *)tensor.f : (const void *)tensor.i;
}

/* Returns a tensor without elements; a shape of fewer axes ends with zeros. */
static Tensor describe(const char *dtype, size_t n0, size_t n1, size_t n2, size_t n3) {
    Tensor tensor = {dtype, {n0, n1, n2, n3}, 1, NULL, NULL};
    for (int axis = 0; axis < RANK && tensor.n[axis] != 0; tensor.count *= tensor.n[axis++])
        if (tensor.count > SIZE_MAX / sizeof(int64_t) / tensor.n[axis])
            die("a tensor of shape [%zu, %zu, %zu, %zu] is too large", n0, n1, n2, n3);
    return tensor;
}

static void place(Tensor *tensor, void *elements) {
    tensor->f = is_float(tensor->dtype) ? elements : NULL;
    tensor->i = is_float(tensor->dtype) ? NULL : elements;
}

static Tensor new_tensor(Memory **memory, const char *dtype, size_t n0, size_t n1, size_t n2, size_t n3) {
    Tensor tensor = describe(dtype, n0, n1, n2, n3);
    place(&tensor, take(memory, byte_count(tensor), "a tensor"));
    return tensor;
}

/* --- files, and the part of JSON that karat and safetensors write ------------------------------------------------- */

static FILE *open_file(const char *folder, const char *name, const char *mode) {
    char path[PATH_SIZE];
    print(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, mode);
    if (file == NULL)
        die("%s: cannot be opened (mode %s)", path, mode);
    return file;
}

static void read_bytes(FILE *file, const char *name, void *bytes, size_t size) {
    size_t found = fread(bytes, 1, size, file);
    if (found != size)
        die("%s: cut short: %zu bytes where %zu are wanted", name, found, size);
}

static char *read_case(Memory **memory, const char *folder) {
    char *text = take(memory, CASE_LIMIT, CASE);
    FILE *file = open_file(folder, CASE, "rb");
    if (fread(text, 1, CASE_LIMIT, file) == CASE_LIMIT || ferror(file))
        die(CASE ": cannot be read, or is longer than %d bytes", CASE_LIMIT);
    fclose(file);
    return text;
}

typedef struct {
    const char *file;
    char *text, *at; /* the text ends with a 0 */
} Scanner;

static bool accept(Scanner *json, char wanted) {
    json->at += strspn(json->at, " \t\r\n");
    bool found = *json->at == wanted;
    json->at += found;
    return found;
}

static void expect(Scanner *json, char wanted) {
    if (!accept(json, wanted))
        die("%s: damaged: there is no %c at byte %td of its JSON", json->file, wanted, json->at - json->text);
}

/* Returns a string and puts a 0 in the place of its closing quote. Escapes are not known: no name has one. */
static char *scan_string(Scanner *json) {
    expect(json, '"');
    char *string = json->at;
    json->at += strcspn(string, "\"");
    expect(json, '"');
    json->at[-1] = '\0';
    return string;
}

static double scan_number(Scanner *json) {
    char *begin = json->at;
    double number = strtod(begin, &json->at);
    if (json->at == begin || !(number >= 0 && number < fmin(0x1p53, (double)SIZE_MAX))) /* so any size is exact */
        die("%s: damaged: there is no usable number at byte %td of its JSON", json->file, begin - json->text);
    return number;
}

static void scan_sizes(Scanner *json, size_t *sizes, size_t limit) {
    size_t found = 0;
    expect(json, '[');
    if (accept(json, ']'))
        return;
    do {
        if (found == limit)
            die("%s: the list at byte %td of its JSON is too long", json->file, json->at - json->text);
        sizes[found++] = (size_t)scan_number(json);
    } while (accept(json, ','));
    expect(json, ']');
}

/* Returns a scanner that stands at the value of a parameter of case.json. */
static Scanner parameter(char *text, const char *quoted_name) {
    char *found = strstr(text, quoted_name);
    if (found == NULL)
        die(CASE ": there is no %s", quoted_name);
    Scanner json = {CASE, text, found + strlen(quoted_name)};
    expect(&json, ':');
    return json;
}

/* --- safetensors: 8 bytes of header length, the header, the bytes of the tensors; all little-endian --------------- */

static Named *scan_entry(Scanner *json, Memory **memory) {
    Named *entry = take(memory, sizeof *entry, json->file);
    const char *dtype = "";
    size_t n[RANK] = {0}, ends[2] = {0};
    entry->name = scan_string(json);
    expect(json, ':');
    expect(json, '{');
    do {
        const char *key = scan_string(json);
        expect(json, ':');
        if (strcmp(key, "dtype") == 0)
            dtype = scan_string(json);
        else if (strcmp(key, "shape") == 0)
            scan_sizes(json, n, RANK);
        else if (strcmp(key, "data_offsets") == 0)
            scan_sizes(json, ends, 2);
        else
            scan_string(json); /* of "__metadata__", which maps strings to strings */
    } while (accept(json, ','));
    expect(json, '}');
    entry->tensor = describe(dtype, n[0], n[1], n[2], n[3]);
    entry->begin = ends[0];
    entry->end = ends[1];
    if (entry->begin > entry->end)
        die("%s: damaged: %s ends before it begins", json->file, entry->name);
    return entry;
}

static Named *read_inputs(Memory **memory, const char *folder) {
    FILE *file = open_file(folder, INPUTS, "rb");
    uint64_t length;
    read_bytes(file, INPUTS, &length, sizeof length);
    if (length > HEADER_LIMIT) /* that of the safetensors library; a big-endian machine ends here, too */
        die(INPUTS ": damaged: a header of %llu bytes", (unsigned long long)length);
    char *header = take(memory, (size_t)length + 1, INPUTS);
    read_bytes(file, INPUTS, header, (size_t)length);
    Scanner json = {INPUTS, header, header};
    Named *inputs = NULL;
    size_t size = 0;
    expect(&json, '{');
    do {
        Named *entry = scan_entry(&json, memory);
        entry->next = inputs;
        inputs = entry;
        size = entry->end > size ? entry->end : size;
    } while (accept(&json, ','));
    expect(&json, '}');
    char *bytes = take(memory, size, INPUTS);
    read_bytes(file, INPUTS, bytes, size);
    fclose(file);
    for (Named *entry = inputs; entry != NULL; entry = entry->next)
        entry->bytes = bytes + entry->begin;
    return inputs;
}

static const Named *find(const Named *inputs, const char *name) {
    while (inputs != NULL && strcmp(inputs->name, name) != 0)
        inputs = inputs->next;
    return inputs;
}

/* Returns an input of at most two axes, n1 being 0 where it has one. */
static Tensor input(const Named *inputs, const char *name, const char *dtype, size_t n0, size_t n1) {
    const Named *entry = find(inputs, name);
    if (entry == NULL)
        die(INPUTS ": there is no %s", name);
    Tensor tensor = entry->tensor;
    if (strcmp(tensor.dtype, dtype) != 0)
        die(INPUTS ": %s is %s, wanted %s: the contract is float32 only", name, tensor.dtype, dtype);
    const size_t wanted[RANK] = {n0, n1}, size = byte_count(tensor), item = size / tensor.count;
    for (int axis = 0; axis < RANK; axis++)
        if (wanted[axis] == ANY ? tensor.n[axis] == 0 : tensor.n[axis] != wanted[axis])
            die(INPUTS ": the length %zu of axis %d of %s does not fit the other inputs", tensor.n[axis], axis, name);
    if (entry->end - entry->begin != size || entry->begin % item != 0)
        die(INPUTS ": %s stands at %zu to %zu; wanted are %zu bytes, aligned", name, entry->begin, entry->end, size);
    place(&tensor, entry->bytes);
    return tensor;
}

/* Writes one entry of a header and returns its length. */
static size_t write_entry(FILE *file, const Named *output, const char *before) {
    const Tensor tensor = output->tensor;
    int length = fprintf(file, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", before, output->name, tensor.dtype);
    for (int axis = 0; axis < RANK && tensor.n[axis] != 0; axis++)
        length += fprintf(file, axis == 0 ? "%zu" : ",%zu", tensor.n[axis]);
    return (size_t)(length + fprintf(file, "],\"data_offsets\":[%zu,%zu]}", output->begin, output->end));
}

static void write_outputs(const char *folder, const Named *outputs) {
    FILE *file = open_file(folder, OUTPUTS, "wb");
    uint64_t length = 2; /* of the header: first its two braces */
    fwrite(&length, sizeof length, 1, file);
    fputc('{', file);
    for (const Named *output = outputs; output != NULL; output = output->next)
        length += write_entry(file, output, output == outputs ? "" : ",");
    fputc('}', file);
    for (; length % 8 != 0; length++) /* so that the tensors are aligned */
        fputc(' ', file);
    for (const Named *output = outputs; output != NULL; output = output->next)
        fwrite(bytes_of(output->tensor), 1, byte_count(output->tensor), file);
    rewind(file);
    fwrite(&length, sizeof length, 1, file); /* now it is known */
    bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed)
        die("%s/" OUTPUTS ": could not be written to its end", folder);
}

/* --- a run of the program, and a forward pass within it ----------------------------------------------------------- */

typedef struct {
    Memory *memory;
    char *text; /* case.json */
    Named *inputs, *outputs;
    size_t n_layer, n_head, max_new_tokens;
    float epsilon;
    Tensor ids, mask, positions; /* (B, T) each: the prompt */
    Tensor decode_ids;           /* (B, steps); all zero where the case has none */
    Tensor wte, wpe;             /* (V, D), (P, D) */
    Tensor cache;                /* (2 layers, B H, capacity, d): the keys of layer i at 2i, its values at 2i + 1 */
} Run;

typedef struct {
    Run *run;
    const char *prefix;    /* of its checkpoints, such as "step.2."; NULL: record none */
    Memory *memory;        /* of the tensors that nobody needs after the pass */
    size_t start;          /* how many tokens the cache holds before the pass */
    char layer[NAME_SIZE]; /* "h.0." inside a block, else "" */
} Pass;

static Tensor floats(Pass *pass, size_t n0, size_t n1, size_t n2, size_t n3) {
    return new_tensor(&pass->memory, "F32", n0, n1, n2, n3);
}

static Tensor floats_like(Pass *pass, Tensor x) {
    return floats(pass, x.n[0], x.n[1], x.n[2], x.n[3]);
}

static Tensor weight(const Pass *pass, const char *name, const char *part, size_t n0, size_t n1) {
    char full[2 * NAME_SIZE];
    print(full, sizeof full, "weights/transformer.%s%s.%s", pass->layer, name, part);
    return input(pass->run->inputs, full, "F32", n0, n1);
}

/* Keeps a copy of a checkpoint if case.json names it, and returns the tensor itself. */
static Tensor record(Pass *pass, const char *name, Tensor tensor) {
    Run *run = pass->run;
    char quoted[NAME_SIZE];
    if (pass->prefix == NULL)
        return tensor;
    size_t length = print(quoted, sizeof quoted, "\"%s%s%s\"", pass->prefix, pass->layer, name);
    if (strstr(run->text, quoted) == NULL)
        return tensor;
    Named **last = &run->outputs, *output = take(&run->memory, sizeof *output, quoted);
    for (; *last != NULL; last = &(*last)->next)
        output->begin = (*last)->end;
    *last = output;
    size_t size = byte_count(tensor);
    output->end = output->begin + size;
    output->name = memcpy(take(&run->memory, length, quoted), quoted + 1, length - 2);
    output->tensor = tensor;
    place(&output->tensor, memcpy(take(&run->memory, size, quoted), bytes_of(tensor), size));
    return tensor;
}

/* --- the operations ----------------------------------------------------------------------------------------------- */

/* Sums in lanes, which makes it faster (a compiler may not reorder one sum) and its rounding error smaller. */
static float dot(const float *x, const float *y, size_t n) {
    float lanes[LANES] = {0}, sum = 0;
    for (size_t j = 0; j < n; j++)
        lanes[j % LANES] += x[j] * y[j];
    for (size_t lane = 0; lane < LANES; lane++)
        sum += lanes[lane];
    return sum;
}

/* x @ weight + bias. The inner loop runs along a row of the weight, and each row is read once for all tokens. */
static Tensor linear(Pass *pass, Tensor x, const char *name, size_t out) {
    size_t rows = x.n[0] * x.n[1], in = x.n[2];
    Tensor matrix = weight(pass, name, "weight", in, out); /* (in, out) */
    out = matrix.n[1];
    Tensor bias = weight(pass, name, "bias", out, 0);     /* (out) */
    Tensor result = floats(pass, x.n[0], x.n[1], out, 0); /* (B, T, out) */
    const float *restrict from = x.f, *restrict w = matrix.f;
    float *restrict to = result.f;
    for (size_t i = 0; i < in; i++)
        for (size_t row = 0; row < rows; row++)
            for (size_t j = 0; j < out; j++)
                to[row * out + j] += from[row * in + i] * w[i * out + j];
    for (size_t j = 0; j < result.count; j++)
        to[j] += bias.f[j % out];
    return result;
}

/* Normalises the last axis of x by its mean and biased variance. */
static Tensor layer_norm(Pass *pass, Tensor x, const char *name) {
    size_t D = x.n[2];
    Tensor gain = weight(pass, name, "weight", D, 0); /* (D) */
    Tensor bias = weight(pass, name, "bias", D, 0);   /* (D) */
    Tensor result = floats_like(pass, x);             /* (B, T, D) */
    for (size_t row = 0; row < x.count; row += D) {
        float sum = 0, *to = result.f + row;
        for (size_t j = 0; j < D; j++)
            sum += x.f[row + j];
        for (size_t j = 0; j < D; j++)
            to[j] = x.f[row + j] - sum / (float)D;
        float deviation = sqrtf(dot(to, to, D) / (float)D + pass->run->epsilon);
        for (size_t j = 0; j < D; j++)
            to[j] = to[j] / deviation * gain.f[j] + bias.f[j];
    }
    return result;
}

/* Softmax of x / temperature over the last axis, which is n long. */
static Tensor softmax(Pass *pass, Tensor x, size_t n, float temperature) {
    Tensor result = floats_like(pass, x); /* the shape of x */
    for (size_t row = 0; row < x.count; row += n) {
        float highest = -INFINITY, *to = result.f + row;
        double sum = 0; /* float would lose the small ones of 50257 terms: measured, 1e-4 of every probability */
        for (size_t j = 0; j < n; j++)
            highest = fmaxf(highest, x.f[row + j] / temperature);
        for (size_t j = 0; j < n; j++)
            sum += to[j] = expf(x.f[row + j] / temperature - highest);
        for (size_t j = 0; j < n; j++)
            to[j] /= (float)sum;
    }
    return result;
}

static Tensor gelu(Pass *pass, Tensor x) {
    const float root = 0.79788456080286536f; /* sqrt(2 / pi) */
    Tensor result = floats_like(pass, x);    /* (B, T, F) */
    for (size_t j = 0; j < x.count; j++) {
        float v = x.f[j];
        result.f[j] = 0.5f * v * (1 + tanhf(root * (v + 0.044715f * v * v * v)));
    }
    return result;
}

static Tensor add(Pass *pass, Tensor x, Tensor y) {
    Tensor result = floats_like(pass, x); /* (B, T, D) */
    for (size_t j = 0; j < x.count; j++)
        result.f[j] = x.f[j] + y.f[j];
    return result;
}

static bool holds(const int64_t *list, size_t length, int64_t wanted) {
    for (size_t j = 0; j < length; j++)
        if (list[j] == wanted)
            return true;
    return false;
}

/* Returns the index of the largest of n values but those of a list, the first of equal ones. */
static int64_t largest(const float *values, size_t n, const int64_t *list, size_t length) {
    int64_t best = -1;
    for (int64_t j = 0; j < (int64_t)n; j++)
        if ((best < 0 || values[j] > values[best]) && !holds(list, length, j))
            best = j;
    return best;
}

/* The indices of the k largest of each row of the logits, (B, V), in falling order. */
static Tensor top(Pass *pass, Tensor logits, size_t k) {
    size_t B = logits.n[0], V = logits.n[1];
    Tensor result = new_tensor(&pass->memory, "I64", B, k, 0, 0); /* (B, k) */
    for (size_t b = 0; b < B; b++)
        for (size_t rank = 0; rank < k; rank++)
            result.i[b * k + rank] = largest(logits.f + b * V, V, result.i + b * k, rank);
    return result;
}

/* --- attention ---------------------------------------------------------------------------------------------------- */

/* Cuts the queries (part 0), keys (1) or values (2) out of qkv, (B, T, 3D); head h is the h-th contiguous run of d. */
static Tensor split_heads(Pass *pass, Tensor qkv, size_t part) {
    size_t B = qkv.n[0], T = qkv.n[1], D = qkv.n[2] / 3, H = pass->run->n_head, d = D / H;
    Tensor result = floats(pass, B, H, T, d); /* (B, H, T, d) */
    for (size_t row = 0; row < B * H * T; row++) {
        size_t b = row / (H * T), h = row / T % H, t = row % T;
        memcpy(result.f + row * d, qkv.f + ((b * T + t) * 3 + part) * D + h * d, d * sizeof(float));
    }
    return result;
}

static Tensor merge_heads(Pass *pass, Tensor x) {
    size_t B = x.n[0], H = x.n[1], T = x.n[2], d = x.n[3];
    Tensor result = floats(pass, B, T, H * d, 0); /* (B, T, D) */
    for (size_t row = 0; row < B * H * T; row++) {
        size_t b = row / (H * T), h = row / T % H, t = row % T;
        memcpy(result.f + ((b * T + t) * H + h) * d, x.f + row * d, d * sizeof(float));
    }
    return result;
}

/* Writes x, (B, H, T, d), behind the tokens in a slot of the cache, and returns all that are then there. */
static Tensor through_cache(Pass *pass, Tensor x, size_t slot) {
    const Tensor cache = pass->run->cache;
    size_t heads = x.n[0] * x.n[1], T = x.n[2], d = x.n[3], start = pass->start, S = start + T;
    Tensor result = floats(pass, x.n[0], x.n[1], S, d); /* (B, H, S, d) */
    for (size_t row = 0; row < heads; row++) {
        float *stored = cache.f + (slot * heads + row) * cache.n[2] * d; /* (capacity, d) */
        memcpy(stored + start * d, x.f + row * T * d, T * d * sizeof(float));
        memcpy(result.f + row * S * d, stored, S * d * sizeof(float));
    }
    return result;
}

/* q k^T / sqrt(d), before the mask. */
static Tensor attention_scores(Pass *pass, Tensor q, Tensor k) {
    size_t T = q.n[2], S = k.n[2], d = q.n[3];
    Tensor scores = floats(pass, q.n[0], q.n[1], T, S); /* (B, H, T, S) */
    for (size_t j = 0; j < scores.count; j++) {
        const float *query = q.f + j / S * d, *key = k.f + (j / (T * S) * S + j % S) * d; /* (d) each */
        scores.f[j] = dot(query, key, d) / sqrtf((float)d);
    }
    return scores;
}

/* Says which tokens a query may see: itself, so that a row of padding stays finite, and earlier ones but padding. */
static bool allowed(const Run *run, size_t b, size_t query, size_t key) {
    size_t T = run->mask.n[1]; /* what comes behind the prompt is no padding */
    return key == query || (key < query && (key >= T || run->mask.i[b * T + key] != 0));
}

static Tensor apply_mask(Pass *pass, Tensor scores) {
    size_t H = scores.n[1], T = scores.n[2], S = scores.n[3];
    Tensor masked = floats_like(pass, scores); /* (B, H, T, S) */
    for (size_t j = 0; j < scores.count; j++) {
        bool seen = allowed(pass->run, j / (H * T * S), pass->start + j / S % T, j % S);
        masked.f[j] = seen ? scores.f[j] : -INFINITY;
    }
    return masked;
}

/* probabilities, (B, H, T, S), @ v, (B, H, S, d). */
static Tensor attention_context(Pass *pass, Tensor probabilities, Tensor v) {
    size_t T = probabilities.n[2], S = v.n[2], d = v.n[3];
    Tensor context = floats(pass, v.n[0], v.n[1], T, d); /* (B, H, T, d) */
    for (size_t j = 0; j < probabilities.count; j++) {
        float *to = context.f + j / S * d, *value = v.f + (j / (T * S) * S + j % S) * d; /* (d) each */
        for (size_t c = 0; c < d; c++)
            to[c] += probabilities.f[j] * value[c];
    }
    return context;
}

/* Causal multi-head self-attention of the tokens x, (B, T, D), over all that are in the cache. */
static Tensor attention(Pass *pass, Tensor x, size_t index) {
    size_t D = x.n[2];
    Tensor qkv = linear(pass, x, "attn.c_attn", 3 * D);                                        /* (B, T, 3D) */
    Tensor q = record(pass, "q", split_heads(pass, qkv, 0));                                   /* (B, H, T, d) */
    Tensor k = record(pass, "k", split_heads(pass, qkv, 1));                                   /* (B, H, T, d) */
    Tensor v = record(pass, "v", split_heads(pass, qkv, 2));                                   /* (B, H, T, d) */
    k = record(pass, "key_cache", through_cache(pass, k, 2 * index));                          /* (B, H, S, d) */
    v = record(pass, "value_cache", through_cache(pass, v, 2 * index + 1));                    /* (B, H, S, d) */
    Tensor scores = record(pass, "attention_scores", attention_scores(pass, q, k));            /* (B, H, T, S) */
    Tensor masked = apply_mask(pass, scores);                                                  /* (B, H, T, S) */
    Tensor p = record(pass, "attention_probabilities", softmax(pass, masked, masked.n[3], 1)); /* (B, H, T, S) */
    Tensor context = record(pass, "attention_context", attention_context(pass, p, v));         /* (B, H, T, d) */
    return linear(pass, merge_heads(pass, context), "attn.c_proj", D);                         /* (B, T, D) */
}

/* --- the model ---------------------------------------------------------------------------------------------------- */

static const float *row_of(Tensor table, int64_t index, const char *what) {
    if (index < 0 || (uint64_t)index >= table.n[0])
        die("there is no %s %lld: its table has %zu rows", what, (long long)index, table.n[0]);
    return table.f + (size_t)index * table.n[1];
}

/* Token embedding plus learned position embedding. */
static Tensor embed(Pass *pass, Tensor ids, Tensor positions) {
    size_t D = pass->run->wte.n[1];
    Tensor hidden = floats(pass, ids.n[0], ids.n[1], D, 0); /* (B, T, D) */
    for (size_t t = 0; t < ids.count; t++) {
        const float *token = row_of(pass->run->wte, ids.i[t], "token");             /* (D) */
        const float *position = row_of(pass->run->wpe, positions.i[t], "position"); /* (D) */
        for (size_t j = 0; j < D; j++)
            hidden.f[t * D + j] = token[j] + position[j];
    }
    return hidden;
}

/* One pre-norm block. */
static Tensor block(Pass *pass, Tensor hidden, size_t index) {
    print(pass->layer, sizeof pass->layer, "h.%zu.", index);
    Tensor normed = record(pass, "ln_1", layer_norm(pass, hidden, "ln_1"));                      /* (B, T, D) */
    Tensor attended = record(pass, "attention_output", attention(pass, normed, index));          /* (B, T, D) */
    Tensor residual = record(pass, "residual", add(pass, hidden, attended));                     /* (B, T, D) */
    normed = record(pass, "ln_2", layer_norm(pass, residual, "ln_2"));                           /* (B, T, D) */
    Tensor inner = record(pass, "c_fc", linear(pass, normed, "mlp.c_fc", ANY));                  /* (B, T, F) */
    Tensor active = record(pass, "activation", gelu(pass, inner));                               /* (B, T, F) */
    Tensor output = record(pass, "ffn_output", linear(pass, active, "mlp.c_proj", hidden.n[2])); /* (B, T, D) */
    Tensor block_output = record(pass, "block_output", add(pass, residual, output));             /* (B, T, D) */
    pass->layer[0] = '\0';
    return block_output;
}

/* Multiplies by the token embedding, to which the head is tied; no bias. */
static Tensor head(Pass *pass, Tensor hidden) {
    const Tensor wte = pass->run->wte; /* (V, D) */
    size_t rows = hidden.n[0] * hidden.n[1], V = wte.n[0], D = wte.n[1];
    Tensor logits = floats(pass, hidden.n[0], hidden.n[1], V, 0); /* (B, T, V) */
    for (size_t token = 0; token < V; token++)
        for (size_t row = 0; row < rows; row++)
            logits.f[row * V + token] = dot(hidden.f + row * D, wte.f + token * D, D);
    return logits;
}

static Tensor last_position(Pass *pass, Tensor logits) {
    size_t B = logits.n[0], T = logits.n[1], V = logits.n[2];
    Tensor last = floats(pass, B, V, 0, 0); /* (B, V) */
    for (size_t b = 0; b < B; b++)
        memcpy(last.f + b * V, logits.f + (b * T + T - 1) * V, V * sizeof(float));
    return last;
}

/* Runs the tokens ids, (B, T), which stand at pass->start in the cache, and returns the logits of the last ones. */
static Tensor forward(Pass *pass, Tensor ids, Tensor positions) {
    Tensor hidden = record(pass, "embeddings", embed(pass, ids, positions)); /* (B, T, D) */
    for (size_t index = 0; index < pass->run->n_layer; index++)
        hidden = block(pass, hidden, index);                         /* (B, T, D) */
    hidden = record(pass, "ln_f", layer_norm(pass, hidden, "ln_f")); /* (B, T, D) */
    Tensor logits = record(pass, "logits", head(pass, hidden));      /* (B, T, V) */
    return last_position(pass, logits);                              /* (B, V) */
}

/* Runs a column of ids, (B, steps), as the tokens that follow the prompt in place `step`, 1 being the next. */
static Tensor forward_step(Pass *pass, Tensor ids, size_t column, size_t step) {
    const Tensor prompt = pass->run->positions; /* (B, T) */
    size_t B = ids.n[0], T = prompt.n[1];
    Tensor id = new_tensor(&pass->memory, "I64", B, 1, 0, 0);       /* (B, 1) */
    Tensor position = new_tensor(&pass->memory, "I64", B, 1, 0, 0); /* (B, 1) */
    for (size_t b = 0; b < B; b++) {
        id.i[b] = ids.i[b * ids.n[1] + column];
        position.i[b] = prompt.i[b * T + T - 1] + (int64_t)step;
    }
    pass->start = T + step - 1;
    return forward(pass, id, position);
}

/* --- what a case asks for ----------------------------------------------------------------------------------------- */

static void read_params(Run *run) {
    Scanner n_head = parameter(run->text, "\"n_head\"");
    Scanner epsilon = parameter(run->text, "\"layer_norm_epsilon\"");
    Scanner max_new_tokens = parameter(run->text, "\"max_new_tokens\"");
    run->n_head = (size_t)scan_number(&n_head);
    run->epsilon = (float)scan_number(&epsilon);
    run->max_new_tokens = (size_t)scan_number(&max_new_tokens);
}

static void read_run(Run *run, const char *folder) {
    run->text = read_case(&run->memory, folder);
    read_params(run);
    const Named *inputs = run->inputs = read_inputs(&run->memory, folder);
    run->ids = input(inputs, "input_ids", "I64", ANY, ANY); /* (B, T) */
    size_t B = run->ids.n[0], T = run->ids.n[1], H = run->n_head;
    run->mask = input(inputs, "attention_mask", "I64", B, T);    /* (B, T) */
    run->positions = input(inputs, "position_ids", "I64", B, T); /* (B, T) */
    if (find(inputs, "decode_ids") != NULL)
        run->decode_ids = input(inputs, "decode_ids", "I64", B, ANY); /* (B, steps) */
    run->wte = input(inputs, "weights/transformer.wte.weight", "F32", ANY, ANY); /* (V, D) */
    size_t V = run->wte.n[0], D = run->wte.n[1];
    run->wpe = input(inputs, "weights/transformer.wpe.weight", "F32", ANY, D); /* (P, D) */
    if (H == 0 || D % H != 0 || V < 5)
        die("%zu channels, %zu heads and %zu tokens make no model", D, H, V);
    char name[NAME_SIZE];
    for (;; run->n_layer++) {
        print(name, sizeof name, "weights/transformer.h.%zu.ln_1.weight", run->n_layer);
        if (find(inputs, name) == NULL)
            break;
    }
    size_t capacity = T + run->decode_ids.n[1] + run->max_new_tokens;
    run->cache = new_tensor(&run->memory, "F32", 2 * run->n_layer, B * H, capacity, D / H);
}

/* Records what follows from the logits of the last tokens, (B, V). */
static void record_last(Pass *pass, Tensor last) {
    Tensor greedy = top(pass, last, 1); /* (B, 1) */
    greedy.n[1] = 0;                    /* (B) */
    record(pass, "last_logits", last);
    record(pass, "greedy_token", greedy);
    record(pass, "top5_indices", top(pass, last, 5)); /* (B, 5) */
    Scanner json = parameter(pass->run->text, "\"temperatures\"");
    expect(&json, '[');
    do {
        char name[NAME_SIZE];
        const char *written = json.at += strspn(json.at, " \t\r\n");
        float temperature = (float)scan_number(&json);
        print(name, sizeof name, "probabilities.t%.*s", (int)(json.at - written), written);
        record(pass, name, softmax(pass, last, last.n[1], temperature)); /* (B, V) */
    } while (accept(&json, ','));
}

/* Feeds the tokens of decode_ids one at a time through the cache. */
static void decode(Run *run) {
    for (size_t step = 1; step <= run->decode_ids.n[1]; step++) {
        char prefix[NAME_SIZE];
        print(prefix, sizeof prefix, "step.%zu.", step);
        Pass pass = {.run = run, .prefix = prefix};
        forward_step(&pass, run->decode_ids, step - 1, step);
        release(&pass.memory);
    }
}

/* Continues the prompt with the likeliest tokens; what decode left in the cache is written over. */
static void continue_greedily(Pass *prefill, Tensor last) {
    size_t B = last.n[0], V = last.n[1], steps = prefill->run->max_new_tokens;
    Tensor seen = floats(prefill, B, steps, V, 0);                       /* (B, steps, V) */
    Tensor chosen = new_tensor(&prefill->memory, "I64", B, steps, 0, 0); /* (B, steps) */
    Pass pass = {.run = prefill->run};
    for (size_t step = 0; step < steps; step++) {
        if (step > 0)
            last = forward_step(&pass, chosen, step - 1, step); /* (B, V) */
        for (size_t b = 0; b < B; b++) {
            memcpy(seen.f + (b * steps + step) * V, last.f + b * V, V * sizeof(float));
            chosen.i[b * steps + step] = largest(last.f + b * V, V, NULL, 0);
        }
        release(&pass.memory);
    }
    record(prefill, "greedy_logits", seen);
    record(prefill, "greedy_tokens", chosen);
}

int main(int argc, char **argv) {
    if (argc != 3)
        die("usage: gpt2 INPUTS_FOLDER OUTPUTS_FOLDER");
    Run run = {0};
    read_run(&run, argv[1]);
    Pass prefill = {.run = &run, .prefix = ""};
    Tensor last = forward(&prefill, run.ids, run.positions); /* (B, V) */
    record_last(&prefill, last);
    decode(&run);
    if (run.max_new_tokens > 0)
        continue_greedily(&prefill, last);
    write_outputs(argv[2], run.outputs);
    release(&prefill.memory);
    release(&run.memory);
    return 0;
}
